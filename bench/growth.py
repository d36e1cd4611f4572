"""What one more edit and one more checkpoint cost as edits add up: python -m afteredit.bench.growth

A thousand facts, one after another, on a tiny random Llama; measured every hundred.  An edit's time is that between two
updates' arrival on the disk: all that the loop does.  Retention is measured on at most 300 edits (three panels of 100)
until the last checkpoint, which asks for all: compared are those at 300 and at 900.
"""

from __future__ import annotations

import json
import tempfile
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from afteredit.bench.table import write_rows
from afteredit.command_line import compose
from afteredit.edit.journal import Lines
from afteredit.run import main

N, EVERY, PANELS = 1000, 100, 300
METHODS = {"rome": "method.layer=1", "memit_seq": "method.layers=[0,1]"}


def measure(folder: Path, method: str) -> dict[str, Any]:
    runs = folder / f"runs-{method}"
    code = main([
        f"method={method}", METHODS[method], "model=hf", f"model.source={folder / 'model'}", f"data={folder}",
        f"edits.file={folder / 'facts.jsonl'}", f"n_edits={N}", f"eval_every={EVERY}", "task=none", "tracker=none",
        f"runs={runs}", "device=cpu", "held_out_tokens=64", "method.value_steps=3",
        f"method.second_moment_text={folder / 'facts.jsonl'}", "on_collapse=continue",
    ])  # fmt: skip
    assert code == 0
    (run,) = runs.iterdir()
    (results,) = run.glob("results-*.jsonl")
    arrivals = sorted(path.stat().st_mtime for path in (run / "updates").glob("*.safetensors"))
    edit_s = [after - before for before, after in pairwise(arrivals)]
    eval_s = {row["n_edits"]: row["time/eval_s"] for row in Lines(results).records}
    early, late = median(edit_s[:EVERY]), median(edit_s[-EVERY:])
    return {
        "name": f"growth, {method}", "edit_s_first_100": early, "edit_s_last_100": late, "edit_growth": late / early,
        f"checkpoint_s_at_{PANELS}": eval_s[PANELS], f"checkpoint_s_at_{N - EVERY}": eval_s[N - EVERY],
        "checkpoint_growth": eval_s[N - EVERY] / eval_s[PANELS],
    }  # fmt: skip


def prepare(folder: Path) -> None:
    """A tiny model with SmolLM2's tokenizer, and N facts."""
    tokenizer = compose(["model=smollm2"]).model.load("cpu", "float32").tokenizer
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    facts = [
        {"id": f"f{i}", "relation": "home", "subject": f"Citizen {i}", "prompt": "{} lives in", "target_new": "Rome",
         "target_true": "Paris", "paraphrases": [f"The home of Citizen {i} is in"],
         "neighbourhood": [f"Neighbour {i} lives in"], "neighbourhood_targets": ["Paris"],
         "generation_prompts": []}
        for i in range(N)
    ]  # fmt: skip
    (folder / "facts.jsonl").write_text("".join(json.dumps(fact) + "\n" for fact in facts), encoding="utf-8")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name))
        write_rows([measure(Path(name), method) for method in METHODS])
