"""The numbers that a sweep compares: for each ability the area under its curve, what is left, edits until a loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from afteredit.evaluate.retention import share_left

LOSSES = (10, 50)  # per cent


def summarise(rows: Sequence[Mapping[str, Any]], chance: Mapping[str, float]) -> dict[str, float]:
    """Returns the summary of each measurable ability, and of `retained`, their mean.

    `area` is the mean height of the curve of what is left (1: nothing is lost), `left` its end, and
    `edits_until_…_percent_lost` the first checkpoint with that loss; where it has not come yet,
    `…_lost_censored_at` says the last edit measured.  Where there are no data there is neither.
    """
    summary: dict[str, float] = {}
    first = rows[0]
    curves = {name: [_share(row, first, name, chance[name]) for row in rows] for name in first.get("measurable", [])}
    curves["retained"] = [row.get("ability/retained") for row in rows]
    for name, shares in curves.items():
        points = [(row["n_edits"], share) for row, share in zip(rows, shares, strict=True) if share is not None]
        if points:
            x, y = np.array(points, dtype=float).T
            summary |= {f"summary/{name}/{key}": value for key, value in _curve_summary(x, y).items()}
    return summary


def _curve_summary(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    summary = {"left": float(y[-1])}
    if x[-1] > x[0]:
        summary["area"] = float(np.trapezoid(y, x) / (x[-1] - x[0]))
    for percent in LOSSES:
        lost = x[y <= 1 - percent / 100 + 1e-9]
        if len(lost):
            summary[f"edits_until_{percent}_percent_lost"] = float(lost[0])
        elif x[-1] > x[0]:
            summary[f"edits_until_{percent}_percent_lost_censored_at"] = float(x[-1])
    return summary


def _share(row: Mapping[str, Any], first: Mapping[str, Any], name: str, chance: float) -> float | None:
    score = row.get(f"ability/{name}")
    return None if score is None else share_left(score, first[f"ability/{name}"], chance)
