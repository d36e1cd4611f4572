"""Does localisation predict where editing works best?  Draws, for each model, effects of tracing beside edits' success.

    python docs/results/locate/picture.py OUT.png NAME TRACE.json BLOCKS.jsonl [NAME TRACE.json BLOCKS.jsonl …]

TRACE.json is what locate=trace writes, BLOCKS.jsonl what blocks.py writes.  Success is the mean efficacy × paraphrase ×
neighbourhood of a block's edits, once by `prob`, once by `generated`, with 95 % bootstrap bands over edits.
"""

import json
import sys
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator

from afteredit.analysis.numbers.statistics import rank_correlation
from afteredit.analysis.pictures.axes import COLOURS, as_png

PARTS = ("efficacy", "paraphrase", "neighbourhood")
AT = "last subject token"
TRACED = {"mlp": "MLP outputs put back", "hidden": "hidden state put back"}
WAYS = {"prob": "new answer likelier (prob)", "generated": "new answer said (generated)"}


def main() -> None:
    out, *given = sys.argv[1:]
    models = [given[i : i + 3] for i in range(0, len(given), 3)]
    figure, axes = plt.subplots(len(models), 3, figsize=(15, 4.6 * len(models)), layout="constrained", squeeze=False)
    for row, (name, trace_path, blocks_path) in zip(axes, models, strict=True):
        trace = json.loads(Path(trace_path).read_text("utf-8"))
        lines = [json.loads(line) for line in Path(blocks_path).read_text("utf-8").splitlines()]
        blocks = sorted((line for line in lines if "edits" in line), key=lambda line: line["block"])
        _effects(row[0], name, trace)
        _success(row[1], blocks, trace)
        _against(row[2], blocks, trace)
    Path(out).write_bytes(as_png(figure, dpi=120))


def success(block: dict, way: str) -> tuple[float, float, float]:
    """Returns the product of the three means over a block's edits, and its 95 % bootstrap band."""
    parts_E3 = np.array([[edit[f"{way}/{part}"] for part in PARTS] for edit in block["edits"]])
    draws = np.random.default_rng(0).integers(len(parts_E3), size=(4000, len(parts_E3)))
    low, high = np.percentile(parts_E3[draws].mean(1).prod(-1), [2.5, 97.5])
    return float(parts_E3.mean(0).prod()), float(low), float(high)


def _effects(axis, name: str, trace: dict) -> None:
    for colour, (kind, label) in zip(COLOURS, TRACED.items(), strict=False):
        values = trace["averages"][kind][AT]
        axis.plot(range(trace["blocks"]), values["mean"], color=colour, label=label)
        axis.fill_between(range(trace["blocks"]), values["low"], values["high"], color=colour, alpha=0.18, linewidth=0)
    axis.axvline(trace["proposed"]["rome.layer"], color="0.3", linewidth=1, label="proposed rome.layer")
    axis.set_title(f"{name}: tracing, {trace['known']} facts", fontsize=10)
    axis.set_ylabel("average indirect effect\nat the subject's last token")
    _finish(axis, "block, or centre of the window")


def _success(axis, blocks: list[dict], trace: dict) -> None:
    at = [block["block"] for block in blocks]
    for colour, (way, label) in zip(COLOURS[2:], WAYS.items(), strict=False):
        mean, low, high = zip(*(success(block, way) for block in blocks), strict=True)
        axis.plot(at, mean, marker="o", markersize=4, color=colour, label=label)
        axis.fill_between(at, low, high, color=colour, alpha=0.18, linewidth=0)
    axis.axvline(trace["proposed"]["rome.layer"], color="0.3", linewidth=1)
    axis.set_xlim(-0.05 * trace["blocks"], 1.02 * trace["blocks"])
    axis.set_ylim(-0.02, 1.02)
    axis.set_title(f"ROME, {len(blocks[0]['edits'])} edits a block, each alone", fontsize=10)
    axis.set_ylabel("efficacy × paraphrase × neighbourhood")
    _finish(axis, "edited block")


def _against(axis, blocks: list[dict], trace: dict) -> None:
    effects = trace["averages"]["mlp"][AT]["mean"]
    said = []
    for colour, way in zip(COLOURS[2:], WAYS, strict=False):
        points = np.array([(effects[block["block"]], success(block, way)[0]) for block in blocks])
        axis.plot(*points.T, linestyle="none", marker="o", markersize=5, color=colour)
        found = rank_correlation([points])
        said.append(f"{way}: Spearman {found.rho:.2f} ({found.low:.2f} to {found.high:.2f})")
        print(trace["model"], way, f"{found.rho:.3f} {found.low:.3f} {found.high:.3f}")
    for block in blocks:
        axis.annotate(str(block["block"]), (effects[block["block"]], success(block, "prob")[0]), fontsize=7,
                      xytext=(3, 3), textcoords="offset points", color="0.4")  # fmt: skip
    axis.set_title("each block once, with its number\n" + "\n".join(said), fontsize=9)
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.set_ylabel("efficacy × paraphrase × neighbourhood")
    axis.set_ylim(-0.02, 1.02)
    axis.grid(alpha=0.25)
    axis.set_xlabel("average indirect effect of MLP outputs")


def _finish(axis, label: str) -> None:
    axis.set_xlabel(label)
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8, frameon=False)


if __name__ == "__main__":
    main()
