"""Draws what is left of the measurable abilities, and perplexity, over the number of edits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from afteredit.analysis.numbers.comparison import Comparison
from afteredit.analysis.numbers.run_values import number
from afteredit.analysis.pictures.axes import FURTHEST, log_axis
from afteredit.analysis.pictures.method_curves import draw_method, draw_runs_and_mean
from afteredit.analysis.pictures.report_style import (
    TOGETHER,
    Styles,
    drawn_range,
    finish,
    groups,
    retained_axis,
    styles,
)
from afteredit.analysis.read.run import Run
from afteredit.analysis.report_part import Part

PLACE = 20
RETAINED = number("ability/retained", 100)
NOTE = ("Thick: mean over runs. Band: 95 % over examples, by a bootstrap that draws each example with its scores "
        "before and after. Thin: one seed each; of so few seeds no band is made. 100 is the unedited model; the axis "
        "reaches down to 0, guessing, only where something comes near it. A perplexity past "
        f"{FURTHEST} times the unedited model's is drawn there.")  # fmt: skip


def part(comparison: Comparison, checkpoints: Sequence[int]) -> Part:
    """Returns one picture; where there are many methods, a second one shows their bands in panels of few."""
    look = styles(list(comparison.runs))
    figures = {"retained": _overview(comparison, look)}
    if len(comparison.runs) > TOGETHER:
        figures["retained-bands"] = _bands(comparison, look)
    return Part("Ability retained, and perplexity", NOTE, figures,
                alt="Ability retained and perplexity over the number of edits")  # fmt: skip


def perplexity_ratio(run: Run, row: Mapping[str, Any]) -> float:
    """Returns perplexity as a multiple of the run's unedited model's, at most FURTHEST; NaN where there is none."""
    perplexity = number("drift/perplexity")
    return min(perplexity(run, row) / perplexity(run, run.rows[0]), FURTHEST)


def _overview(comparison: Comparison, look: Styles) -> Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for label, runs in comparison.runs.items():
        draw_method(left, comparison, label, "retained", RETAINED, look, 100, band=len(comparison.runs) <= TOGETHER)
        draw_runs_and_mean(right, runs, perplexity_ratio, look[label])
    chance = retained_axis(left)
    left.set_title(f"Ability retained, mean over measurable abilities ({len(comparison.in_retained)})")
    low, high = drawn_range(right, "y")
    log_axis(right, "y", min(0.9, 0.95 * low), max(1.2, 1.1 * high))  # a change of 1 % must not look like a cliff
    right.axhline(1, color="0.25", linewidth=1, zorder=1.5)
    right.set(title="Perplexity of held-out text", ylabel="perplexity ÷ unedited model's (log scale)")
    finish(figure, [left, right], comparison, look, chance=chance)
    return figure


def _bands(comparison: Comparison, look: Styles) -> Figure:
    panels = groups(list(comparison.runs))
    figure, axes = plt.subplots(1, len(panels), figsize=(11, 4.2), layout="constrained")
    for axis, group in zip(axes, panels, strict=True):
        for label in [*(label for label in comparison.runs if label not in group), *group]:  # grey ones below
            draw_method(axis, comparison, label, "retained", RETAINED, look, 100, grey=label not in group)
    chance = any([retained_axis(axis) for axis in axes])
    limits = [axis.get_ylim() for axis in axes]
    for axis in axes:
        axis.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
    for axis in axes[1:]:
        axis.set_ylabel("")
    finish(figure, list(axes), comparison, look, grey=True, chance=chance)
    return figure
