"""Draws drift against the ability retained, every checkpoint of every run: does drift say what is lost?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from afteredit.analysis.numbers.cell_text import signed
from afteredit.analysis.numbers.comparison import Comparison
from afteredit.analysis.numbers.drift import WARNING, correlations, drift_points
from afteredit.analysis.numbers.statistics import Correlation
from afteredit.analysis.pictures.axes import FURTHEST, log_axis
from afteredit.analysis.pictures.report_style import Styles, about, caption, legend, retained_axis, styles
from afteredit.analysis.report_part import Part

PLACE = 80
TITLES = {"perplexity": "perplexity ÷ unedited model's",
          "relative_norm": "‖W − W₀‖ ÷ ‖W₀‖, the most changed matrix"}  # fmt: skip
NOTE = ("One mark per checkpoint and run, without the unedited model's. Dashed: perplexity 10 % up. Where there are "
        "fewer than five runs the interval is over checkpoints, which depend on each other: the true one is "
        "wider.")  # fmt: skip


def part(comparison: Comparison, checkpoints: Sequence[int]) -> Part | None:
    if not comparison.chosen_checkpoints(checkpoints) or not comparison.in_retained:
        return None
    return Part("Does drift say what is lost?", NOTE, {"drift": drift_map(comparison)})


def drift_map(comparison: Comparison) -> Figure:
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained", sharey=True)
    look = styles(list(comparison.runs))
    for axis, (kind, correlation) in zip(axes, correlations(comparison).items(), strict=True):
        drawn = _draw_points(axis, comparison, kind, look)
        chance = retained_axis(axis)
        if kind == "perplexity":
            axis.axvline(WARNING, color="0.25", linewidth=0.9, linestyle="--")
            drawn.append(WARNING)
        _log_where_wide(axis, drawn)
        scale = " (log scale)" if axis.get_xscale() == "log" else ""
        axis.set(title=correlation_text(correlation), xlabel=TITLES[kind] + scale)
        axis.title.set_fontsize(10)
        axis.grid(alpha=0.25)
    axes[1].set_ylabel("")
    legend(figure, comparison, {label: {**style, "linestyle": "none"} for label, style in look.items()}, chance=chance)
    note = f"One mark per run and checkpoint.  Dashed: perplexity {100 * (WARNING - 1):.0f} % up."
    caption(figure, comparison, f"{note}  A perplexity past {FURTHEST} times the unedited model's is drawn there.")
    return figure


def correlation_text(correlation: Correlation) -> str:
    if math.isnan(correlation.rho):
        return "rank correlation: not defined here"
    rho, low, high = (signed(f"{value:.2f}") for value in correlation[:3])
    if math.isnan(correlation.low):
        return f"Spearman ρ = {rho} ({correlation.n_points} checkpoints: too few for an interval)"
    return f"Spearman ρ = {rho}, 95 % interval [{low}, {high}] over {correlation.over}"


def _draw_points(axis: Axes, comparison: Comparison, kind: str, look: Styles) -> list[float]:
    """Draws a mark per edited model; returns where they stand on the x-axis."""
    drawn: list[float] = []
    for label, runs in comparison.runs.items():
        for run in runs:
            named = {**look[label], "linestyle": "none", "label": f"{label}\n{about([run])}"}
            for points in drift_points([run], kind):
                x = np.minimum(points[:, 0], FURTHEST)
                axis.plot(x, 100 * points[:, 1], alpha=0.75, markersize=5, **named)
                drawn += list(x)
    return drawn


def _log_where_wide(axis: Axes, values: Sequence[float]) -> None:
    positive = [value for value in values if value > 0]
    if positive and max(positive) > 5 * min(positive):
        log_axis(axis, "x", 0.85 * min(positive), 1.18 * max(positive))
