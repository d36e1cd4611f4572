"""Draws one panel of the figure on the success of single edits: a group of bars for each measure."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from afteredit.analysis.study.points import in_first_order
from afteredit.analysis.study.published import SUCCESS, published_as
from afteredit.analysis.study.styles import CURVE, THEIR_MARKS, Style

ROOM = 0.84  # of the distance between two groups, that the bars of one take
HALO = withStroke(linewidth=2.5, foreground="white")  # keeps a mark visible on a dark bar


def draw_bars(axis: Axes, ours: pd.DataFrame, theirs: pd.DataFrame, styles: Mapping[tuple, Style]) -> None:
    """Draws a bar for each of `styles` with its interval, and the published values as marks over it.

    A bar of 0 says "0", one that no run has says "not run".
    """
    ours, width = ours[in_first_order(ours)], ROOM / len(styles)
    for group, quantity in enumerate(SUCCESS):
        here, there = (table[table["quantity"] == quantity] for table in (ours, theirs))
        for i, ((method, constraint, size), style) in enumerate(styles.items()):
            x = group + (i - (len(styles) - 1) / 2) * width
            _bar(axis, x, width, _of(here, method, constraint, size), style)
            for point in _of(there, method, published_as(constraint), size).itertuples():
                axis.plot(x, point.value, color="black", marker=THEIR_MARKS[point.model], markersize=7,
                          path_effects=[HALO])  # fmt: skip
    axis.set_xticks(range(len(SUCCESS)), list(SUCCESS))
    axis.grid(visible=False, axis="x")


def patch(style: Style) -> Patch:
    """Returns how the legend shows a bar."""
    return Patch(facecolor=style.colour, alpha=0.75, label=style.label, hatch="///" if style.hollow else None)


def _bar(axis: Axes, x: float, width: float, points: pd.DataFrame, style: Style) -> None:
    if points.empty:
        axis.text(x, 0.02, "not run", rotation=90, ha="center", va="bottom", color="0.5", fontsize=8)
        return
    point = points.iloc[0]
    axis.bar(x, point["value"], 0.92 * width, color=style.colour, alpha=0.75, hatch="///" if style.hollow else None)
    if point["value"] == 0:
        axis.text(x, 0.01, "0", ha="center", va="bottom", fontsize=9)
    elif not math.isnan(point["band_low"]):
        axis.plot([x, x], [point["band_low"], point["band_high"]], color="0.2", linewidth=1, path_effects=[HALO])


def _of(points: pd.DataFrame, *curve: object) -> pd.DataFrame:
    return points[(points[CURVE] == list(curve)).all(axis=1)]
