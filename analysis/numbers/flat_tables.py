"""All that runs measured, as tables with one number, edit or example a row: for whoever looks further."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from afteredit.analysis.read.run_folders import Run


def metrics_table(runs: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """Every number of every checkpoint, one a row."""
    return pd.DataFrame([
        {"method": label, "run": run.name, "seed": run.seed, "n_edits": row["n_edits"], "metric": key, "value": value}
        for label, own in runs.items() for run in own for row in (run.rows[0], *run.edited)
        for key, value in row.items()
        if key != "n_edits" and isinstance(value, int | float) and not isinstance(value, bool)
    ])  # fmt: skip


def edits_table(runs: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """One row per update: the edits it wrote, its seconds, diagnostics, and how often they succeeded right after it."""
    rows = [{"method": label, "run": run.name, "seed": run.seed, "n_edits": record["n_edits"],
             "n_new": len(record.get("requests", [])), **_edited(record)}
            for label, own in runs.items() for run in own for record in run.edits]  # fmt: skip
    return pd.DataFrame(rows, columns=None if rows else ["method", "run", "seed", "n_edits", "n_new", *_edited({})])


def samples_table(runs: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """Every example's score at every checkpoint, one a row."""
    frames = [run.samples.assign(method=label, run=run.name, seed=run.seed)
              for label, own in runs.items() for run in own if len(run.samples)]  # fmt: skip
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _edited(record: Mapping[str, Any]) -> dict[str, Any]:
    """An update's columns; ids, subjects and targets of a batch are in one text each."""
    requests = [request if isinstance(request, Mapping) else {"id": request} for request in record.get("requests", [])]
    texts = {f"{name}s": "; ".join(str(request.get(name, "")) for request in requests)
             for name in ("id", "subject", "target_new")}  # fmt: skip
    numbers = {key: value for key, value in record.get("diagnostics", {}).items() if isinstance(value, int | float)}
    scores: dict[str, list[float]] = {}
    for scored in record.get("immediate", []):
        scores.setdefault(f"immediate/{scored['name']}", []).append(scored["score"])
    return {**texts, "edit_s": record.get("edit_s", math.nan),
            **{f"diagnostics/{key}": float(value) for key, value in sorted(numbers.items())},
            **{key: sum(values) / len(values) for key, values in sorted(scores.items())}}  # fmt: skip
