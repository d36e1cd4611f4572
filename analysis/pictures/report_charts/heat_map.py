"""Draws what is left of each ability under each method, after chosen numbers of edits."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from afteredit.analysis.numbers.cell_text import signed
from afteredit.analysis.numbers.comparison import Comparison
from afteredit.analysis.numbers.run_values import mean_over, number
from afteredit.analysis.pictures.report_style import RETAINED_LABEL, caption
from afteredit.analysis.report_part import Part
from afteredit.record.terminal import so_many_edits

PLACE = 70
ALL = "retained"
NOTE = ("Share of the unedited model's score above chance, mean over runs; in small print half the 95 % interval over "
        "examples. The method that lost least comes first. n. m.: not measurable; –: not measured so far.")  # fmt: skip


def part(comparison: Comparison, checkpoints: Sequence[int]) -> Part | None:
    panels = comparison.chosen_checkpoints(checkpoints)
    if not panels or not comparison.measurable:
        return None
    return Part("Methods and abilities", NOTE, {"heat-map": heat_map(comparison, panels)})


def shares(comparison: Comparison, n_edits: int) -> pd.DataFrame:
    """Returns what is left after `n_edits` by method and ability, and the mean of them, `retained`; NaN: unknown."""
    table = {label: {comparison.ability_title(name): mean_over(runs, n_edits, comparison.share(name))
                     if name in comparison.measurable else math.nan for name in comparison.first.abilities}
             | {ALL: mean_over(runs, n_edits, number("ability/retained"))}
             for label, runs in comparison.runs.items()}  # fmt: skip
    return pd.DataFrame.from_dict(table, orient="index")


def half_widths(comparison: Comparison, n_edits: int) -> pd.DataFrame:
    """Returns half the width of the 95 % interval of each of `shares`, NaN where there is none."""
    at_n = comparison.curves[comparison.curves["n_edits"] == n_edits].set_index(["method", "curve"])
    half = (at_n["high"] - at_n["low"]) / 2
    scales = {comparison.ability_title(name): (f"ability/{name}", comparison.base(name) - comparison.chance[name])
              for name in comparison.measurable}  # fmt: skip
    scales |= {ALL: ("retained", 1.0)}
    table = {label: {title: half.get((label, curve), math.nan) / scale for title, (curve, scale) in scales.items()}
             for label in comparison.runs}  # fmt: skip
    return pd.DataFrame.from_dict(table, orient="index").replace(math.inf, math.nan)


def heat_map(comparison: Comparison, panels: Sequence[int]) -> Figure:
    """Draws a panel for each number of edits in `panels`; the method that lost least in the last comes first."""
    labels = list(shares(comparison, panels[-1])[ALL].sort_values(ascending=False, kind="stable").index)
    height = max(3.6, 1.6 + len(panels) * (0.5 + 0.46 * len(labels)))
    figure, axes = plt.subplots(len(panels), 1, figsize=(11, height), squeeze=False, layout="constrained", sharex=True)
    for axis, n_edits in zip(axes[:, 0], panels, strict=True):
        image = _draw_panel(axis, comparison, n_edits, labels)
    figure.colorbar(image, ax=axes[:, 0], label=RETAINED_LABEL, fraction=0.03, pad=0.02, extend="both")
    note = (
        "Mean over runs; small: half the 95 % interval over examples.  n. m.: not measurable, the unedited model is at "
        "chance.  The method that lost least in the last panel comes first."
    )
    caption(figure, comparison, note)
    return figure


def _draw_panel(axis: Axes, comparison: Comparison, n_edits: int, labels: Sequence[str]) -> Any:
    """Draws one row per method in `labels`; returns the image, to which a colour bar can be fitted."""
    abilities, measurable = comparison.first.abilities, comparison.measurable
    table = 100 * shares(comparison, n_edits).loc[labels]
    half = 100 * half_widths(comparison, n_edits).reindex(index=labels, columns=table.columns)
    image = axis.imshow(table.to_numpy(), cmap="cividis", vmin=0, vmax=100, aspect="auto")
    for (i, j), value in np.ndenumerate(table.to_numpy()):
        _cell(axis, i, j, value, float(half.iat[i, j]), j >= len(abilities) or abilities[j] in measurable)
    axis.set_yticks(range(len(labels)), labels, fontsize=9)
    axis.set_xticks(range(table.shape[1]), [textwrap.fill(title, 14) for title in table.columns], fontsize=8)
    axis.set_title(f"after {so_many_edits(n_edits)}", fontsize=10, loc="left")
    axis.axvline(table.shape[1] - 1.5, color="white", linewidth=3)
    return image


def _cell(axis: Axes, i: int, j: int, value: float, half: float, measurable: bool) -> None:
    if math.isnan(value):
        axis.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor="white", edgecolor="0.8", linewidth=0,
                                 hatch="" if measurable else "////"))  # fmt: skip
        axis.text(j, i, "–" if measurable else "n. m.", ha="center", va="center", fontsize=9,
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})  # fmt: skip
        return
    colour, known = "white" if value < 55 else "black", not math.isnan(half)
    placed: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "center", "color": colour}
    axis.annotate(signed(f"{value:.0f}"), (j, i), xytext=(0, 5 * known), fontsize=9, **placed)
    if known:
        axis.annotate(f"± {half:.0f}", (j, i), xytext=(0, -8), fontsize=6.5, **placed)
