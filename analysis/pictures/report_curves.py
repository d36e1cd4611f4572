"""Curves over the number of edits: abilities with their bands, every seed a thin line; editing success; perplexity."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from afteredit.analysis.numbers.comparison import Comparison, Of, common_checkpoints, mean_over, number
from afteredit.analysis.pictures.axes import FURTHEST, at_least, log_axis
from afteredit.analysis.pictures.report_style import (
    TOGETHER,
    Styles,
    drawn_range,
    finish,
    groups,
    retained_axis,
    styles,
)
from afteredit.analysis.read.run_folders import Run

KEPT = number("ability/retained", 100)
EDITING = {
    "editing/immediate/generated/efficacy": "Efficacy, right after the edit",
    "editing/retained/generated/efficacy": "Efficacy, retained",
    "editing/retained/generated/paraphrase": "Paraphrases, retained",
    "editing/retained/generated/neighbourhood": "Neighbourhood unchanged",
}


def overview(x: Comparison) -> dict[str, Figure]:
    """What is left of all measurable abilities, and perplexity; of many methods the bands in panels of their own."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    look = styles(list(x.runs))
    for label, runs in x.runs.items():
        _curve(left, x, label, "retained", KEPT, look, 100, band=len(x.runs) <= TOGETHER)
        _seeds(right, runs, perplexity_ratio, look[label], mean=True)
    chance = retained_axis(left)
    left.set_title(f"Ability retained, mean over measurable abilities ({len(x.measurable)})")
    low, high = drawn_range(right, "y")
    log_axis(right, "y", min(0.9, 0.95 * low), max(1.2, 1.1 * high))  # 1 % is no cliff
    right.axhline(1, color="0.25", linewidth=1, zorder=1.5)
    right.set(title="Perplexity of held-out text", ylabel="perplexity ÷ unedited model's (log scale)")
    finish(figure, [left, right], x, look, chance=chance)
    if len(x.runs) <= TOGETHER:
        return {"retained": figure}
    return {"retained": figure, "retained-bands": _retained_bands(x, look)}


def perplexity_ratio(run: Run, row: Mapping[str, Any]) -> float:
    """Perplexity as a multiple of the run's unedited model's, at most FURTHEST; NaN where there is none."""
    now = number("drift/perplexity")
    return min(now(run, row) / now(run, run.rows[0]), FURTHEST)


def abilities(x: Comparison) -> dict[str, Figure]:
    """Per ability the score's and the gold answer's NLL's change; in panels of few methods, the others in grey."""
    shown = groups(list(x.runs))
    names = ["abilities"] if len(shown) == 1 else [f"abilities-{i}" for i in range(1, len(shown) + 1)]
    return {name: _abilities(x, group) for name, group in zip(names, shown, strict=True) if x.first.abilities}


def editing(x: Comparison) -> Figure | None:
    """Editing success by greedy generation; at 0 edits the unedited model's.  None where it was not measured."""
    rows = [row for runs in x.runs.values() for run in runs for row in run.rows]
    shown = [(key, title) for key, title in EDITING.items() if any(key in row for row in rows)]
    if not shown:
        return None
    n_rows = math.ceil(len(shown) / 2)
    figure, axes = plt.subplots(n_rows, 2, figsize=(11, 3.4 * n_rows), layout="constrained", squeeze=False)
    look = styles(list(x.runs))
    for axis, (key, title) in zip(axes.flat, shown, strict=False):
        for label, runs in x.runs.items():
            _seeds(axis, runs, number(key, 100), look[label], mean=True)
        axis.set(title=title, ylim=(-3, 103), ylabel="share of prompts (%)")
    for axis in list(axes.flat)[len(shown) :]:
        axis.remove()
    finish(figure, list(axes.flat)[: len(shown)], x, look)
    return figure


def _retained_bands(x: Comparison, look: Styles) -> Figure:
    shown = groups(list(x.runs))
    figure, axes = plt.subplots(1, len(shown), figsize=(11, 4.2), layout="constrained")
    for axis, group in zip(axes, shown, strict=True):
        for label in [*(label for label in x.runs if label not in group), *group]:  # grey ones below
            _curve(axis, x, label, "retained", KEPT, look, 100, grey=label not in group)
    chance = any([retained_axis(axis) for axis in axes])
    limits = [axis.get_ylim() for axis in axes]
    for axis in axes:
        axis.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
    for axis in axes[1:]:
        axis.set_ylabel("")
    finish(figure, list(axes), x, look, grey=True, chance=chance)
    return figure


def _abilities(x: Comparison, shown: Sequence[str]) -> Figure:
    look = styles(list(x.runs))
    names = x.first.abilities
    figure, axes = plt.subplots(len(names), 2, figsize=(11, 2.7 * len(names) + 0.9), layout="constrained",
                                squeeze=False, sharex=True)  # fmt: skip
    chance_drawn = False
    for (left, right), name in zip(axes, names, strict=True):
        key, gold = f"ability/{name}", f"ability/{name}/gold_nll"
        for label in [*(label for label in x.runs if label not in shown), *shown]:  # grey ones below
            for axis, curve, scale in ((left, key, 100), (right, gold, 1)):
                _curve(axis, x, label, curve, _since_start(curve, scale), look, scale, grey=label not in shown)
        base, chance = x.base(name), x.chance[name]
        for axis in (left, right):
            axis.axhline(0, color="0.25", linewidth=0.9, zorder=1.5)
        lost = 0.75 * 100 * (chance - base)  # where anything is lost so far, chance is near and drawn
        if drawn_range(left, "y")[0] < lost:
            left.axhline(100 * (chance - base), color="0.25", linestyle=":", linewidth=1.2)
            chance_drawn = True
        title = x.ability_title(name)
        if name not in x.measurable:
            left.set_facecolor("#ececec")
            title += " — not measurable (at chance)"
        left.set_title(title, fontsize=10, loc="left")
        right.set_title("gold answers", fontsize=10, loc="left")
        guessing = "" if math.isnan(chance) else f", chance {100 * chance:.1f} %"
        left.set_ylabel(f"change (points)\nunedited {100 * base:.1f} %{guessing}", fontsize=9)
        right.set_ylabel("change of NLL\n(nats per token)", fontsize=9)
        left.margins(y=0.1)
        at_least(left, 4)
        at_least(right, 0.04)
    finish(figure, list(axes.flat), x, {label: look[label] for label in shown}, xlabels=list(axes[-1]),
           grey=len(shown) < len(x.runs), chance=chance_drawn)  # fmt: skip
    return figure


def _curve(axis: Axes, x: Comparison, label: str, curve: str, of: Of, look: Styles, scale: float, *,
           band: bool = True, grey: bool = False) -> None:  # fmt: skip
    """The mean over runs with its band over examples, and each run as a thin line."""
    points = x.curves[(x.curves["method"] == label) & (x.curves["curve"] == curve)]
    if grey:
        axis.plot(points["n_edits"], scale * points["value"], color="0.8", linewidth=1, zorder=1)
        return
    style = look[label]
    if band and points["low"].notna().any():
        low, high = (scale * points[side].replace([-np.inf, np.inf], np.nan) for side in ("low", "high"))
        axis.fill_between(points["n_edits"], low, high, color=style["color"], alpha=0.16, linewidth=0)
    axis.plot(points["n_edits"], scale * points["value"], linewidth=1.9, markersize=5, **style)
    _seeds(axis, x.runs[label], of, style, mean=False)


def _seeds(axis: Axes, runs: Sequence[Run], of: Of, style: Mapping[str, Any], *, mean: bool) -> None:
    """Each run a thin line where there are several; with `mean`, their mean at the checkpoints that all have."""
    for run in runs if len(runs) > 1 else []:
        axis.plot([row["n_edits"] for row in run.rows], [_finite(of(run, row)) for row in run.rows],
                  color=style["color"], linestyle=style["linestyle"], linewidth=0.9, alpha=0.9)  # fmt: skip
    if mean:
        n_edits = common_checkpoints(runs)
        axis.plot(n_edits, [_finite(mean_over(runs, n, of)) for n in n_edits], linewidth=1.9, markersize=5, **style)


def _since_start(key: str, scale: float) -> Of:
    now = number(key, scale)
    return lambda run, row: now(run, row) - now(run, run.rows[0])


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.nan
