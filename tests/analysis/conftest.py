"""Made-up run directories, as the main job writes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd
import pytest
import yaml

TASKS = {
    "nli": {"title": "Inference", "chance": 0.5},
    "reasoning": {"title": "Reasoning", "chance": 0.0},
}
Right = Mapping[str, Sequence[float]]  # ability: each example's score


def write_run(
    runs: Path,
    method: str,
    seed: int,
    checkpoints: Mapping[int, Right],
    *,
    measurable: Sequence[str] = ("nli",),
    perplexity: Mapping[int, float] | None = None,
    config: Mapping | None = None,
    digest: str = "aaaaaaaa",
    tasks: Mapping[str, Mapping] = TASKS,
) -> Path:
    """A run directory whose scores are the means of `checkpoints`' examples; gold NLL is 1 − score."""
    folder = runs / f"{method}-tiny-{seed:08x}"
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    whole = {"model": {"name": "tiny"}, "method": {"_target_": f"afteredit.edit.{method}.X", "layer": 1},
             "constraint": {"_target_": "afteredit.edit.constraint.Unconstrained"}, "edits": {"name": "facts"},
             "task": {name: dict(tasks[name]) for name in checkpoints[0]}, "seed": seed, "setting": "sequential",
             "data": "mini", "limit": None, "collapse_perplexity": 100.0, **(config or {})}  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(whole), encoding="utf-8")
    rows = []
    for n_edits, abilities in checkpoints.items():
        score = {name: sum(right) / len(right) for name, right in abilities.items()}
        row: dict = {"n_edits": n_edits, "drift/perplexity": (perplexity or {}).get(n_edits, 20.0 + n_edits),
                     "drift/1/relative_norm": 0.01 * n_edits, "editing/retained/prob/efficacy": 1.0 * (n_edits > 0),
                     "editing/retained/generated/efficacy": 0.9 * (n_edits > 0)}  # fmt: skip
        for name, value in score.items():
            row |= {
                f"ability/{name}": value,
                f"ability/{name}/gold_nll": 1 - value,
                f"ability/{name}/unparseable": 0.25,
            }
        if n_edits == 0:
            base, row["measurable"] = score, list(measurable)
        chance = {name: tasks[name]["chance"] for name in measurable}
        kept = [(score[name] - level) / (base[name] - level) for name, level in chance.items()]
        rows.append(row | ({"ability/retained": sum(kept) / len(kept)} if kept else {}))
        pd.DataFrame([
            {"n_edits": n_edits, "kind": "ability", "name": name, "doc_id": float(i), "numerator": value,
             "denominator": 1.0, "gold_nll": 1 - value, "unparseable": 0.25}
            for name, right in abilities.items() for i, value in enumerate(right)
        ]).to_parquet(folder / "samples" / f"{digest}-{n_edits:06d}.parquet")  # fmt: skip
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / f"results-{digest}.jsonl").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def made_run() -> Callable[..., Path]:
    return write_run
