"""Draws a method's curve over the number of edits: the mean over runs with its band, and every run as a thin line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from afteredit.analysis.numbers.comparison import Comparison
from afteredit.analysis.numbers.run_values import Value, common_checkpoints, mean_over
from afteredit.analysis.pictures.report_style import Styles, about
from afteredit.analysis.read.run import Run


def draw_method(axis: Axes, comparison: Comparison, label: str, curve: str, value: Value, look: Styles, scale: float, *,
                band: bool = True, grey: bool = False) -> None:  # fmt: skip
    """Draws `curve` of `Comparison.curves`, times `scale`; `value` reads the same of one run.

    `grey`: only the mean, as background.
    """
    points = comparison.curves[(comparison.curves["method"] == label) & (comparison.curves["curve"] == curve)]
    if grey:
        axis.plot(points["n_edits"], scale * points["value"], color="0.8", linewidth=1, zorder=1, label=label)
        return
    style = look[label]
    if band and points["low"].notna().any():
        low, high = (scale * points[side].replace([-np.inf, np.inf], np.nan) for side in ("low", "high"))
        axis.fill_between(points["n_edits"], low, high, color=style["color"], alpha=0.16, linewidth=0, label=label)
    _draw(axis, comparison.runs[label], points["n_edits"], scale * points["value"], style)
    draw_runs(axis, comparison.runs[label], value, style)


def draw_runs(axis: Axes, runs: Sequence[Run], value: Value, style: Mapping[str, Any]) -> None:
    """Draws each run as a thin line, where there are several."""
    for run in runs if len(runs) > 1 else []:
        _draw(axis, [run], [row["n_edits"] for row in run.rows], [_finite(value(run, row)) for row in run.rows],
              {**style, "marker": None, "linewidth": 0.9, "alpha": 0.9})  # fmt: skip


def draw_runs_and_mean(axis: Axes, runs: Sequence[Run], value: Value, style: Mapping[str, Any]) -> None:
    """Draws each run as a thin line, and their mean at the checkpoints that all have."""
    draw_runs(axis, runs, value, style)
    checkpoints = common_checkpoints(runs)
    means = [_finite(mean_over(runs, n, value)) for n in checkpoints]
    _draw(axis, runs, checkpoints, means, style)


def _draw(axis: Axes, runs: Sequence[Run], edits: Any, values: Any, style: Mapping[str, Any]) -> None:
    label = f"{style['label']}\n{about(runs)}"
    axis.plot(edits, values, **{"linewidth": 1.9, "markersize": 5, **style, "label": label})


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.nan
