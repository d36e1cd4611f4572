"""Writes the memory table of docs/models.md: what `plan` says of each preset, one fact at a time, in bfloat16.

python docs/results/plan/presets.py
"""

from pathlib import Path

import torch
from omegaconf import OmegaConf

from afteredit.commands.plan.shape_only import without_weights
from afteredit.edit.request import EditRequest
from afteredit.launch.command_line import compose

ROOT = Path(__file__).resolve().parents[3]
PAGE, BEGIN, END = ROOT / "docs" / "models.md", "<!-- plan: written by make memory -->", "<!-- /plan -->"
FACT = EditRequest(id="f", subject="Danielle Darrieux", prompt="The mother tongue of {} is", target_new="English")
COLUMNS = ("weights", "edited matrices as they were", "preparing", "updating", "on the CPU")


def main() -> None:
    presets = sorted(path.stem for path in (ROOT / "conf" / "model").glob("*.yaml"))
    lines = [
        f"| model | {' | '.join(f'{name} ROME / MEMIT' if name != 'weights' else name for name in COLUMNS)} |",
        f"|---|{'---|' * len(COLUMNS)}",
    ]
    for name in presets:
        if OmegaConf.select(OmegaConf.load(ROOT / "conf" / "model" / f"{name}.yaml"), "shape") is not None:
            lines.append(row(name))
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{after}", encoding="utf-8")
    print("\n".join(lines))


def row(name: str) -> str:
    held = {}
    for method in ("rome", "memit"):
        x = compose([f"model={name}", f"method={method}", "dtype=bfloat16", "task=none", "tracker=none"])
        lm = without_weights(x.model, "bfloat16", "cuda", "auto", [FACT.question, "English"])
        cost, sizes = x.method.cost(lm, [FACT], 1), [lm.widths(0)] * len(x.method.edited(lm))
        weights = sum(p.numel() for p in lm.model.parameters()) * torch.bfloat16.itemsize
        held[method] = [
            weights,
            8 * sum(D * F for D, F in sizes),
            cost.preparing,
            cost.updating,
            sum(cost.cpu.values()),
        ]
    pairs = list(zip(held["rome"], held["memit"], strict=True))
    cells = [gib(pairs[0][0]), *(f"{gib(rome)} / {gib(memit)}" for rome, memit in pairs[1:])]
    return f"| {name} | {' | '.join(cells)} |"


def gib(n_bytes: float) -> str:
    return f"{n_bytes / 2**30:.2g}" if n_bytes < 10 * 2**30 else f"{n_bytes / 2**30:.0f}"


if __name__ == "__main__":
    main()
