"""Draws one panel of a figure whose points are curves over edits, rounds or batch sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pandas as pd
from matplotlib.axes import Axes

from afteredit.analysis.study.points import in_first_order
from afteredit.analysis.study.styles import CURVE, THEIR_MARKS, Style

MOST_BANDS = 3  # curves in a panel; the bands of more hide each other


def draw_curves(axis: Axes, ours: pd.DataFrame, theirs: pd.DataFrame, styles: Mapping[tuple, Style]) -> None:
    """Draws our curves, other orders of the facts thin, and the published ones dotted with their marks."""
    ticks = sorted({*ours["x"], *theirs["x"]})
    spread = len(ticks) > 2 and ticks[-1] > 40 * max(ticks[1], 1)  # batch sizes: every size has the same room
    place = {x: float(i) if spread else float(x) for i, x in enumerate(ticks)}
    first = in_first_order(ours)
    for curve, (scoring, _), points in _grouped(ours[~first], ["scoring", "order"]):
        axis.plot(points["x"].map(place), points["value"], linestyle=_dash(scoring), linewidth=0.7, alpha=0.7,
                  color=styles[curve].colour)  # fmt: skip
    for curve, (scoring,), points in _grouped(ours[first], ["scoring"]):
        x, style = points["x"].map(place), styles[curve]
        axis.plot(x, points["value"], linestyle=_dash(scoring), **marks(style))
        if len(styles) <= MOST_BANDS and points["band_low"].notna().any():
            axis.fill_between(x, points["band_low"], points["band_high"], color=style.colour, alpha=0.12, linewidth=0)
    for curve, (model,), points in _grouped(theirs, ["model"]):
        axis.plot(points["x"].map(place), points["value"], linestyle=":", linewidth=0.9, markersize=6.5,
                  color=styles[curve].colour, marker=THEIR_MARKS[model])  # fmt: skip
    shown = ticks if spread else sorted(set(ours["x"])) or ticks
    axis.set_xticks([place[x] for x in shown], [f"{x:,}" if x or not spread else "none" for x in shown], fontsize=8)


def marks(style: Style) -> dict:
    """Returns how matplotlib draws our curve and its marker."""
    size, inside = (6.5, "white") if style.hollow else (4.5, style.colour)
    return {"color": style.colour, "linewidth": style.width, "marker": style.marker, "markersize": size,
            "markerfacecolor": inside}  # fmt: skip


def _dash(scoring: str) -> str:
    return "--" if scoring == "clean" else "-"


def _grouped(points: pd.DataFrame, keys: list[str]) -> Iterator[tuple[tuple, tuple, pd.DataFrame]]:
    for key, group in points.sort_values("x").groupby([*CURVE, *keys], sort=False):
        yield key[: len(CURVE)], key[len(CURVE) :], group
