"""Draws efficacy against the ability retained: what an edit gains and what it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from afteredit.analysis.numbers.comparison import Comparison
from afteredit.analysis.numbers.run_values import common_checkpoints, mean_over, number
from afteredit.analysis.pictures.report_style import RETAINED_LABEL, about, caption, drawn_range, groups, legend, styles
from afteredit.analysis.read.run import Run
from afteredit.analysis.report_part import Part

PLACE = 60
EFFICACY = {
    "editing/retained/generated/efficacy": "greedy text begins with the new target",
    "editing/retained/prob/efficacy": "new target likelier than the true one",
}
RETAINED = number("ability/retained", 100)
ROOM = 0.06  # between the numbers along a path, as a share of the axis's length
NOTE = ("Each path goes from checkpoint to checkpoint, the numbers are edits applied; the ring is the first checkpoint "
        "with edits, the large mark the last that all runs have. Up and to the right is better.")  # fmt: skip


def part(comparison: Comparison, checkpoints: Sequence[int]) -> Part | None:
    if not comparison.chosen_checkpoints(checkpoints) or not comparison.in_retained:
        return None
    return Part("Efficacy against ability", NOTE, {"trade-off": trade_off(comparison)})


def trade_off(comparison: Comparison) -> Figure:
    """Draws a path per method, from checkpoint to checkpoint; up and to the right is better.

    Many methods are drawn few in a row of panels, those that lost least in the first row.
    """
    look = styles(list(comparison.runs))
    left = {label: mean_over(runs, common_checkpoints(runs)[-1], RETAINED) for label, runs in comparison.runs.items()}
    rows = groups(sorted(comparison.runs, key=lambda label: (math.isnan(left[label]), -left[label])))
    figure, axes = plt.subplots(len(rows), 2, figsize=(11, 3.5 * len(rows) + 1), layout="constrained", sharex="row",
                                sharey="row", squeeze=False)  # fmt: skip
    for row, group in zip(axes, rows, strict=True):
        for axis, (key, title) in zip(row, EFFICACY.items(), strict=True):
            for label in group:
                _draw_path(axis, comparison.runs[label], key, look[label])
            axis.set_title(f"Efficacy: {title}", fontsize=10)
            axis.grid(alpha=0.25)
        _fit(row, "x", 2)
        _fit(row, "y", 5)
        row[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:g}" if 0 <= value <= 100 else ""))
        row[0].set_ylabel("retained edits (%)")
        for axis, key in zip(row, EFFICACY, strict=True):
            axis.axvline(100, color="0.25", linewidth=0.9, zorder=1)
            for place, label in enumerate(group):
                _number_path(axis, _path(comparison.runs[label], key), look[label], place)
    for axis in axes[-1]:
        axis.set_xlabel(RETAINED_LABEL.replace("\n", " "))
    legend(
        figure,
        comparison,
        {label: look[label] for group in rows for label in group},
        seeds="hollow: one seed, at the end",
    )
    scales = "  Each row has its own scales." if len(rows) > 1 else ""
    caption(figure, comparison, "Numbers: edits applied.  Ring: the first checkpoint with edits; large mark: the last "
                                f"that all runs have.  Line at 100: the unedited model.{scales}")  # fmt: skip
    return figure


def _path(runs: Sequence[Run], key: str) -> dict[int, tuple[float, float]]:
    """Returns, by edits applied, ability retained and `key`, both in %, the mean over runs."""
    return {n: (mean_over(runs, n, RETAINED), mean_over(runs, n, number(key, 100)))
            for n in common_checkpoints(runs) if n > 0}  # fmt: skip


def _draw_path(axis: Axes, runs: Sequence[Run], key: str, style: Mapping[str, Any]) -> None:
    path = _path(runs, key)
    if not path:
        return
    points, mean = list(path.values()), {**style, "label": f"{style['label']}\n{about(runs)}"}
    axis.plot(*zip(*points, strict=True), linewidth=1, alpha=0.9, markersize=4, **mean)
    axis.plot(*points[0], marker="o", markersize=11, markerfacecolor="none", markeredgecolor=style["color"],
              label=mean["label"])  # fmt: skip
    axis.plot(*points[-1], markersize=9, markeredgecolor="black", **mean)
    for run in runs if len(runs) > 1 else []:
        row = run.row(list(path)[-1]) or {}
        seed = [100 * row.get(k, math.nan) for k in ("ability/retained", key)]
        label = f"{style['label']}\n{about([run])}"
        axis.plot(*zip(points[-1], seed, strict=True), color=style["color"], linewidth=0.6, alpha=0.7, label=label)
        axis.plot(*seed, marker=style["marker"], markersize=5, markerfacecolor="white", markeredgewidth=0.9,
                  markeredgecolor=style["color"], label=label)  # fmt: skip


def _number_path(axis: Axes, path: Mapping[int, tuple[float, float]], style: Mapping[str, Any],
                 place: int) -> None:  # fmt: skip
    """Writes the numbers of edits along a path: the last, the first, and those between them that have room.

    `place` counts the methods of a panel; the numbers of each stand at a height of their own above or below the path.
    """
    edits, (width, height) = list(path), (np.ptp(axis.get_xlim()), np.ptp(axis.get_ylim()))
    side, distance = 1 if place % 2 == 0 else -1, 8 + 10 * (place // 2)
    written: list[tuple[float, float]] = []
    for n_edits in [*edits[-1:], *edits[:-1]]:
        x, y = path[n_edits][0] / width, path[n_edits][1] / height
        if all(max(abs(x - other_x), abs(y - other_y)) > ROOM for other_x, other_y in written):
            written.append((x, y))
            axis.annotate(str(n_edits), path[n_edits], xytext=(0, side * distance), textcoords="offset points",
                          fontsize=8, color=style["color"], ha="center", va="bottom" if side > 0 else "top",
                          label=style["label"],
                          bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.5})  # fmt: skip


def _fit(axes: Sequence[Axes], which: str, least: float) -> None:
    """Gives all panels one range: all that is drawn, and 100, with room of at least `least` for the numbers."""
    ranges = [drawn_range(axis, which) for axis in axes]
    low, high = min(100, *(low for low, _ in ranges)), max(100, *(high for _, high in ranges))
    margin = max((0.08 if which == "x" else 0.18) * (high - low), least)
    for axis in axes:
        (axis.set_xlim if which == "x" else axis.set_ylim)(low - margin, high + margin)
