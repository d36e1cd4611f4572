"""Measures what an edit and a checkpoint cost as edits add up: python -m afteredit.bench.growth

A thousand facts are written one after another to a tiny random Llama, with ten checkpoints.  An edit's time is that
between the arrival of two updates on the disk: all that the loop does.  Retention is measured on three panels of 100
edits, which overlap, so checkpoints are compared by seconds per edit asked about, from 300 edits on.  The last
checkpoint asks about all.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from afteredit.bench.table import results_option, write_rows
from afteredit.launch.command_line import compose
from afteredit.run import main as run
from afteredit.store.checked_lines import Lines

CHECKPOINTS, PANELS = 10, 3
METHODS = {"rome": "method.layer=1", "memit_seq": "method.layers=[0,1]"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edits", type=int, default=1000)
    results_option(parser)
    arguments = parser.parse_args()
    n, every = arguments.edits, arguments.edits // CHECKPOINTS
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name), n)
        write_rows([measure(Path(name), method, n, every) for method in METHODS], arguments.results)


def measure(folder: Path, method: str, n: int, every: int) -> dict[str, Any]:
    runs = folder / f"runs-{method}"
    code = run([
        f"method={method}", METHODS[method], "model=hf", f"model.source={folder / 'model'}", f"data={folder}",
        f"edits.file={folder / 'facts.jsonl'}", f"n_edits={n}", f"eval_every={every}", "task=none", "tracker=none",
        f"runs={runs}", "device=cpu", "held_out_tokens=64", "method.value_steps=3",
        f"method.second_moment_text={folder / 'facts.jsonl'}", "on_collapse=continue",
    ])  # fmt: skip
    assert code == 0
    (folder_of_run,) = runs.iterdir()
    (results,) = folder_of_run.glob("results-*.jsonl")
    arrivals = sorted(path.stat().st_mtime for path in (folder_of_run / "updates").glob("*.safetensors"))
    edit_s = [after - before for before, after in pairwise(arrivals)]
    asked = {row["n_edits"]: (row["time/eval_s"], row["editing/retained/n_edits"]) for row in Lines(results).records}
    return {"name": f"growth, {method}", "n_edits": n, **growth(edit_s, asked, every)}


def growth(edit_s: Sequence[float], asked: Mapping[int, tuple[float, float]], every: int) -> dict[str, float]:
    """Returns how much longer the last `every` edits took than the first, and the later half of the checkpoints with
    full panels (but the last) than the earlier half.  `asked` holds, by number of edits, a checkpoint's seconds and the
    number of edits asked about."""
    early, late = median(edit_s[:every]), median(edit_s[-every:])
    last = max(asked)
    full = [n for n in sorted(asked) if PANELS * every <= n < last]
    n_half = len(full) // 2
    ends = [[asked[n][0] / asked[n][1] for n in half] for half in (full[:n_half], full[-n_half:])]
    return {
        "edit_s_first": early, "edit_s_last": late, "edit_growth": late / early,
        "early_to": full[n_half - 1], "late_from": full[-n_half],
        "early_s_per_edit_asked": median(ends[0]), "late_s_per_edit_asked": median(ends[1]),
        "checkpoint_growth": median(ends[1]) / median(ends[0]), "last_checkpoint_s": asked[last][0],
    }  # fmt: skip


def prepare(folder: Path, n: int) -> None:
    """Writes a tiny model with SmolLM2's tokenizer, and `n` facts, into the folder."""
    tokenizer = compose(["model=smollm2"]).model.load("cpu", "float32").tokenizer
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=3,
                         num_attention_heads=4)  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    facts = [
        {"id": f"f{i}", "relation": "home", "subject": f"Citizen {i}", "prompt": "{} lives in", "target_new": "Rome",
         "target_true": "Paris", "paraphrases": [f"The home of Citizen {i} is in"],
         "neighbourhood": [f"Neighbour {i} lives in"], "neighbourhood_targets": ["Paris"],
         "generation_prompts": []}
        for i in range(n)
    ]  # fmt: skip
    (folder / "facts.jsonl").write_text("".join(json.dumps(fact) + "\n" for fact in facts), encoding="utf-8")


if __name__ == "__main__":
    main()
