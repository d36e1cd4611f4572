"""How far a model has moved from the unedited one, and whether that says what it has lost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from afteredit.analysis.numbers import statistics
from afteredit.analysis.numbers.comparison import Comparison
from afteredit.analysis.read.run import Run

WARNING = 1.1  # perplexity past this multiple of the unedited model's is a warning: 10 %, as the first loss looked for


def drift(run: Run, row: Mapping[str, Any], kind: str) -> float:
    """Returns the drift of a row's model, NaN where it was not measured.

    `kind`: perplexity (as a multiple of the unedited model's; infinity where it is NaN) or relative_norm (the largest
    over layers).
    """
    if kind == "perplexity":
        ratio = float(row.get("drift/perplexity", math.nan) / run.rows[0].get("drift/perplexity", math.nan))
        return math.inf if "drift/perplexity" in row and math.isnan(ratio) else ratio
    return float(max((value for key, value in row.items() if key.endswith(f"/{kind}")), default=math.nan))


def drift_points(runs: Sequence[Run], kind: str) -> list[np.ndarray]:
    """Returns, for each run that has any, the (drift, share of ability retained) of every edited model."""
    points_by_run = []
    for run in runs:
        points = [(drift(run, row, kind), row.get("ability/retained", math.nan)) for row in run.edited]
        known = [point for point in points if not any(map(math.isnan, point))]
        if known:
            points_by_run.append(np.array(known))
    return points_by_run


def correlations(comparison: Comparison) -> dict[str, statistics.Correlation]:
    """Returns, for each kind of drift, its rank correlation with the ability retained over all runs' checkpoints."""
    runs = [run for group in comparison.runs.values() for run in group]
    return {kind: statistics.rank_correlation(drift_points(runs, kind)) for kind in ("perplexity", "relative_norm")}
