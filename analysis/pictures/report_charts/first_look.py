"""Draws everything that was measured on one screen: abilities retained, perplexity, the edits, and each ability."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from afteredit.analysis.numbers.comparison import Comparison
from afteredit.analysis.numbers.in_words import in_words
from afteredit.analysis.numbers.run_values import number
from afteredit.analysis.pictures.axes import log_axis
from afteredit.analysis.pictures.method_curves import draw_runs_and_mean
from afteredit.analysis.pictures.report_charts.retained import perplexity_ratio
from afteredit.analysis.pictures.report_style import Styles, drawn_range, finish, styles
from afteredit.analysis.report_part import Part

PLACE = 0
IN_A_ROW = 4
TITLE = 36  # characters that fit over a small panel
EFFICACY = "editing/retained/prob/efficacy"


def part(comparison: Comparison, checkpoints: Sequence[int]) -> Part:
    """Returns one picture, and what happened in a few sentences."""
    abilities = comparison.first.abilities
    n_rows = math.ceil(len(abilities) / IN_A_ROW)
    figure = plt.figure(figsize=(12, 3.4 + 2.2 * n_rows), layout="constrained")
    grid = figure.add_gridspec(1 + n_rows, 3 * IN_A_ROW, height_ratios=[1.45, *[1] * n_rows])
    look = styles(list(comparison.runs))
    above = [figure.add_subplot(grid[0, IN_A_ROW * i : IN_A_ROW * (i + 1)]) for i in range(3)]
    _overview(above, comparison, look)
    below = [figure.add_subplot(grid[1 + i // IN_A_ROW, 3 * (i % IN_A_ROW) : 3 * (i % IN_A_ROW) + 3])
             for i in range(len(abilities))]  # fmt: skip
    for axis, name in zip(below, abilities, strict=True):
        _ability(axis, comparison, look, name)
    finish(figure, [*above, *below], comparison, look, xlabels=below[-IN_A_ROW:] or above, chance=bool(below))
    return Part("What happened", figures={"first-look": figure}, lead=in_words(comparison),
                alt="Abilities retained, perplexity, edits that hold and each ability's score over the number of "
                    "edits")  # fmt: skip


def _overview(axes: Sequence[Axes], comparison: Comparison, look: Styles) -> None:
    retained, perplexity, efficacy = axes
    for label, runs in comparison.runs.items():
        draw_runs_and_mean(retained, runs, number("ability/retained", 100), look[label])
        draw_runs_and_mean(perplexity, runs, perplexity_ratio, look[label])
        draw_runs_and_mean(efficacy, runs, number(EFFICACY, 100), look[label])
    _, most = drawn_range(retained, "y")
    retained.set(title="Abilities retained", ylabel="% of the score above chance", ylim=(-4, max(104, 1.04 * most)))
    retained.axhline(0, color="0.25", linestyle=":", linewidth=1.2)
    low, high = drawn_range(perplexity, "y")
    log_axis(perplexity, "y", min(0.9, 0.95 * low), max(2, 1.15 * high))
    perplexity.set(title="Perplexity of ordinary text", ylabel="÷ unedited model's (log scale)")
    efficacy.set(title="Edits that hold", ylabel="% of new facts likelier", ylim=(-4, 104))


def _ability(axis: Axes, comparison: Comparison, look: Styles, name: str) -> None:
    for label, runs in comparison.runs.items():
        draw_runs_and_mean(axis, runs, number(f"ability/{name}", 100), look[label])
    chance = comparison.chance.get(name, math.nan)
    axis.axhline(100 * chance, color="0.25", linestyle=":", linewidth=1.2)
    title = comparison.ability_title(name)
    if name not in comparison.measurable:
        axis.set_facecolor("#ececec")
        title += "\n(not measurable)"
    axis.set_title(title, fontsize=10 if max(map(len, title.splitlines())) < TITLE else 8)
    _, high = drawn_range(axis, "y")
    axis.set_ylim(-0.03 * high, 1.12 * max(high, 1))
    axis.set_ylabel("score (%)", fontsize=9)
