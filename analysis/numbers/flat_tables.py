"""Everything that runs measured, as tables with one number, edit or example per row, for analyses of your own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from afteredit.analysis.read.run import Run
from afteredit.analysis.read.run_folders import read


def results(*folders: str | Path) -> pd.DataFrame:
    """Returns a row for each checkpoint of the runs in `folders`, which are run directories or hold some, with every
    number as a column of its own: `n_edits`, `ability/nli`, `drift/perplexity`, …  Raises BadInput."""
    return pd.DataFrame([
        {"method": run.method, "model": run.model, "seed": run.seed, "run": run.name, "evaluation": run.evaluation,
         **{key: value for key, value in row.items() if _is_number(value)}}
        for run in read(map(Path, folders)) for row in (run.rows[0], *run.edited)
    ])  # fmt: skip


def metrics_table(runs: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """Returns every number of every checkpoint, one per row."""
    return pd.DataFrame([
        {"method": label, "run": run.name, "seed": run.seed, "n_edits": row["n_edits"], "metric": key, "value": value}
        for label, group in runs.items() for run in group for row in (run.rows[0], *run.edited)
        for key, value in row.items()
        if key != "n_edits" and _is_number(value)
    ])  # fmt: skip


def edits_table(runs: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """Returns one row per update: its edits, seconds and diagnostics, and how often the edits succeeded right after."""
    rows = [{"method": label, "run": run.name, "seed": run.seed, "n_edits": record["n_edits"],
             "n_new": len(record.get("requests", [])), **_update_columns(record)}
            for label, group in runs.items() for run in group for record in run.edits]  # fmt: skip
    return pd.DataFrame(
        rows, columns=None if rows else ["method", "run", "seed", "n_edits", "n_new", *_update_columns({})]
    )


def samples_table(runs: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """Returns every example's score at every checkpoint, one per row."""
    frames = [run.samples.assign(method=label, run=run.name, seed=run.seed)
              for label, group in runs.items() for run in group if len(run.samples)]  # fmt: skip
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _update_columns(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an update's columns; the ids of a batch stand in one text, and so do its subjects and its targets."""
    requests = [request if isinstance(request, Mapping) else {"id": request} for request in record.get("requests", [])]
    texts = {f"{name}s": "; ".join(str(request.get(name, "")) for request in requests)
             for name in ("id", "subject", "target_new")}  # fmt: skip
    numbers = {key: value for key, value in record.get("diagnostics", {}).items() if isinstance(value, int | float)}
    scores: dict[str, list[float]] = {}
    for sample in record.get("immediate", []):
        scores.setdefault(f"immediate/{sample['name']}", []).append(sample["score"])
    return {**texts, "edit_s": record.get("edit_s", math.nan),
            **{f"diagnostics/{key}": float(value) for key, value in sorted(numbers.items())},
            **{key: sum(values) / len(values) for key, values in sorted(scores.items())}}  # fmt: skip
