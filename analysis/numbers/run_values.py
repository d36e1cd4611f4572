"""Single numbers read from a run's rows, and their means over runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from afteredit.analysis.read.run import Run

Value = Callable[[Run, Mapping[str, Any]], float]  # from a run and its row at a checkpoint to one number


def number(key: str, scale: float = 1) -> Value:
    """Returns a function that reads a row's number under `key`, NaN where the row has none."""
    return lambda _run, row: scale * float(row.get(key, math.nan))


def since_unedited(key: str, scale: float = 1) -> Value:
    """Returns a function that reads how far the number under `key` has moved from the unedited model's."""
    value = number(key, scale)
    return lambda run, row: value(run, row) - value(run, run.rows[0])


def mean_over(runs: Sequence[Run], n_edits: int, value: Value) -> float:
    """Returns the mean of `value` over runs after `n_edits` edits, NaN where a run has no such row or number."""
    values = [math.nan if (row := run.row(n_edits)) is None else value(run, row) for run in runs]
    return sum(values) / len(values)


def common_checkpoints(runs: Sequence[Run]) -> list[int]:
    """Returns the numbers of edits at which every one of `runs` was measured."""
    return sorted(set.intersection(*({int(row["n_edits"]) for row in run.rows} for run in runs)))
