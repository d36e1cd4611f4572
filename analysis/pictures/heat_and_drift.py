"""Pictures without a time axis: methods × abilities, drift against what is kept."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from afteredit.analysis.numbers import statistics
from afteredit.analysis.numbers.comparison import Comparison, common_checkpoints, mean_over, number
from afteredit.analysis.pictures.axes import FURTHEST, log_axis
from afteredit.analysis.pictures.report_style import RETAINED, caption, legend, retained_axis, signed, styles
from afteredit.analysis.read.run_folders import Run

N_CHOSEN = 3
ALL = "all measurable"
WARNING = 1.1  # perplexity past this multiple of the unedited model's is a warning: 10 %, as the first loss looked for


def measured_checkpoints(x: Comparison) -> list[int]:
    """The numbers of edits at which all runs of some method were measured."""
    return sorted({n for runs in x.runs.values() for n in common_checkpoints(runs) if n > 0})


def chosen_checkpoints(x: Comparison, asked: Sequence[int]) -> list[int]:
    """Those `asked` for that were measured; asked for none, the last, and others evenly before it."""
    measured = measured_checkpoints(x)
    if asked or len(measured) <= N_CHOSEN:
        return [n for n in measured if not asked or n in asked]
    return [measured[round((i + 1) * len(measured) / N_CHOSEN) - 1] for i in range(N_CHOSEN)]


def shares(x: Comparison, n_edits: int) -> pd.DataFrame:
    """Method × ability (and all measurable ones together): what is left after `n_edits`, 1 = all; NaN: not known."""
    table = {label: {x.ability_title(name): mean_over(runs, n_edits, x.share(name))
                     if name in x.measurable else math.nan for name in x.first.abilities}
             | {ALL: mean_over(runs, n_edits, number("ability/retained"))}
             for label, runs in x.runs.items()}  # fmt: skip
    return pd.DataFrame.from_dict(table, orient="index")


def half_widths(x: Comparison, n_edits: int) -> pd.DataFrame:
    """Of `shares`: half the 95 % interval's width, NaN where there is none."""
    at_n = x.curves[x.curves["n_edits"] == n_edits].set_index(["method", "curve"])
    half = (at_n["high"] - at_n["low"]) / 2
    above = {x.ability_title(name): (f"ability/{name}", x.base(name) - x.chance[name]) for name in x.measurable}
    above |= {ALL: ("retained", 1.0)}
    table = {label: {title: half.get((label, curve), math.nan) / scale for title, (curve, scale) in above.items()}
             for label in x.runs}  # fmt: skip
    return pd.DataFrame.from_dict(table, orient="index").replace(math.inf, math.nan)


def heat_map(x: Comparison, chosen: Sequence[int]) -> Figure:
    """What is left of each ability after the chosen numbers of edits; the method that lost least comes first."""
    labels = list(shares(x, chosen[-1])[ALL].sort_values(ascending=False, kind="stable").index)
    figure, axes = plt.subplots(len(chosen), 1, figsize=(11, max(3.6, 1.6 + len(chosen) * (0.5 + 0.46 * len(labels)))),
                                squeeze=False, layout="constrained", sharex=True)  # fmt: skip
    for axis, n_edits in zip(axes[:, 0], chosen, strict=True):
        table = 100 * shares(x, n_edits).loc[labels]
        half = 100 * half_widths(x, n_edits).reindex(index=labels, columns=table.columns)
        image = axis.imshow(table.to_numpy(), cmap="cividis", vmin=0, vmax=100, aspect="auto")
        for (i, j), value in np.ndenumerate(table.to_numpy()):
            measurable = j >= len(x.first.abilities) or x.first.abilities[j] in x.measurable
            _cell(axis, i, j, value, float(half.iat[i, j]), measurable)
        axis.set_yticks(range(len(labels)), labels, fontsize=9)
        axis.set_xticks(range(table.shape[1]), [textwrap.fill(title, 14) for title in table.columns], fontsize=8)
        axis.set_title(f"after {n_edits} edits", fontsize=10, loc="left")
        axis.axvline(table.shape[1] - 1.5, color="white", linewidth=3)
    figure.colorbar(image, ax=axes[:, 0], label=RETAINED, fraction=0.03, pad=0.02, extend="both")
    note = (
        "Mean over runs; small: half the 95 % interval over examples.  n. m.: not measurable, the unedited model is at "
        "chance.  The method that lost least in the last panel comes first."
    )
    caption(figure, x, note)
    return figure


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


def drift_points(runs: Sequence[Run], kind: str) -> list[np.ndarray]:
    """Per run the (drift, share retained) of its checkpoints after 0; `kind`: perplexity (as a multiple of the
    unedited model's) or relative_norm (the largest over layers)."""
    by_run = []
    for run in runs:
        points = [(drift(run, row, kind), row.get("ability/retained", math.nan)) for row in run.edited]
        kept = [point for point in points if not any(map(math.isnan, point))]
        if kept:
            by_run.append(np.array(kept))
    return by_run


def drift(run: Run, row: Mapping[str, Any], kind: str) -> float:
    if kind == "perplexity":
        ratio = float(row.get("drift/perplexity", math.nan) / run.rows[0].get("drift/perplexity", math.nan))
        return math.inf if "drift/perplexity" in row and math.isnan(ratio) else ratio  # NaN: as far off as can be
    return float(max((value for key, value in row.items() if key.endswith(f"/{kind}")), default=math.nan))


def correlations(x: Comparison) -> dict[str, statistics.Correlation]:
    """Of what is retained with perplexity and with the weights' relative change, over all runs' checkpoints."""
    runs = [run for own in x.runs.values() for run in own]
    return {kind: statistics.rank_correlation(drift_points(runs, kind)) for kind in ("perplexity", "relative_norm")}


def drift_map(x: Comparison) -> Figure:
    """Every checkpoint of every run: does drift say what is lost?"""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained", sharey=True)
    look = styles(list(x.runs))
    titles = {
        "perplexity": "perplexity ÷ unedited model's",
        "relative_norm": "‖W − W₀‖ ÷ ‖W₀‖, the most changed matrix",
    }
    for axis, (kind, found) in zip(axes, correlations(x).items(), strict=True):
        drawn = []
        for label, runs in x.runs.items():
            for points in drift_points(runs, kind):
                shown = np.minimum(points[:, 0], FURTHEST)
                axis.plot(shown, 100 * points[:, 1], alpha=0.75, markersize=5, **{**look[label], "linestyle": "none"})
                drawn += list(shown)
        chance = retained_axis(axis)
        if kind == "perplexity":
            axis.axvline(WARNING, color="0.25", linewidth=0.9, linestyle="--")
            drawn.append(WARNING)
        _log_where_wide(axis, drawn)
        axis.set(
            title=correlation_text(found), xlabel=titles[kind] + (" (log scale)" if axis.get_xscale() == "log" else "")
        )
        axis.title.set_fontsize(10)
        axis.grid(alpha=0.25)
    axes[1].set_ylabel("")
    legend(figure, x, {label: {**style, "linestyle": "none"} for label, style in look.items()}, chance=chance)
    note = f"One mark per run and checkpoint.  Dashed: perplexity {100 * (WARNING - 1):.0f} % up."
    caption(figure, x, f"{note}  A perplexity past {FURTHEST} times the unedited model's is drawn there.")
    return figure


def correlation_text(found: statistics.Correlation) -> str:
    if math.isnan(found.rho):
        return "rank correlation: not defined here"
    rho, low, high = (signed(f"{value:.2f}") for value in found[:3])
    if math.isnan(found.low):
        return f"Spearman ρ = {rho} ({found.n_points} checkpoints: too few for an interval)"
    return f"Spearman ρ = {rho}, 95 % interval [{low}, {high}] over {found.over}"


def _log_where_wide(axis: Axes, values: Sequence[float]) -> None:
    positive = [value for value in values if value > 0]
    if positive and max(positive) > 5 * min(positive):
        log_axis(axis, "x", 0.85 * min(positive), 1.18 * max(positive))
