"""Draws how each ability's score, and the likelihood of its gold answers, changes over the number of edits."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from afteredit.analysis.numbers.comparison import Comparison
from afteredit.analysis.numbers.run_values import since_unedited
from afteredit.analysis.pictures.axes import at_least
from afteredit.analysis.pictures.method_curves import draw_method
from afteredit.analysis.pictures.report_style import drawn_range, finish, groups, styles
from afteredit.analysis.report_part import Part

PLACE = 30


def part(comparison: Comparison, checkpoints: Sequence[int]) -> Part | None:
    """Returns one picture per few methods, the others in grey; None where no ability was measured."""
    if not comparison.first.abilities:
        return None
    panels = groups(list(comparison.runs))
    names = ["abilities"] if len(panels) == 1 else [f"abilities-{i}" for i in range(1, len(panels) + 1)]
    figures = {name: _figure(comparison, group) for name, group in zip(names, panels, strict=True)}
    return Part("Each ability, and how likely its gold answers are", figures=figures,
                alt="Change of each ability's score and of its gold answers' negative log-likelihood over the number "
                    "of edits")  # fmt: skip


def _figure(comparison: Comparison, group: Sequence[str]) -> Figure:
    look, names = styles(list(comparison.runs)), comparison.first.abilities
    figure, axes = plt.subplots(len(names), 2, figsize=(11, 2.7 * len(names) + 0.9), layout="constrained",
                                squeeze=False, sharex=True)  # fmt: skip
    chance_drawn = False
    for (left, right), name in zip(axes, names, strict=True):
        for label in [*(label for label in comparison.runs if label not in group), *group]:  # grey ones below
            for axis, curve, scale in ((left, f"ability/{name}", 100), (right, f"ability/{name}/gold_nll", 1)):
                draw_method(axis, comparison, label, curve, since_unedited(curve, scale), look, scale,
                            grey=label not in group)  # fmt: skip
        for axis in (left, right):
            axis.axhline(0, color="0.25", linewidth=0.9, zorder=1.5)
        chance_drawn |= _draw_chance(left, comparison, name)
        _describe(left, right, comparison, name)
        left.margins(y=0.1)
        at_least(left, 4)
        at_least(right, 0.04)
    finish(figure, list(axes.flat), comparison, {label: look[label] for label in group}, xlabels=list(axes[-1]),
           grey=len(group) < len(comparison.runs), chance=chance_drawn)  # fmt: skip
    return figure


def _draw_chance(axis: Axes, comparison: Comparison, name: str) -> bool:
    """Draws chance, and returns True, where so much is lost that chance is near."""
    from_base = 100 * (comparison.chance[name] - comparison.base(name))
    near = drawn_range(axis, "y")[0] < 0.75 * from_base
    if near:
        axis.axhline(from_base, color="0.25", linestyle=":", linewidth=1.2)
    return near


def _describe(left: Axes, right: Axes, comparison: Comparison, name: str) -> None:
    title = comparison.ability_title(name)
    if name not in comparison.measurable:
        left.set_facecolor("#ececec")
        title += " — not measurable"
    left.set_title(title, fontsize=10, loc="left")
    right.set_title("gold answers", fontsize=10, loc="left")
    chance = comparison.chance[name]
    guessing = "" if math.isnan(chance) else f", chance {100 * chance:.1f} %"
    left.set_ylabel(f"change (points)\nunedited {100 * comparison.base(name):.1f} %{guessing}", fontsize=9)
    right.set_ylabel("change of NLL\n(nats per token)", fontsize=9)
