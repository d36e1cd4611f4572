"""Pictures without a time axis: efficacy against what is kept, methods × abilities, drift against what is kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from afteredit.analysis import statistics
from afteredit.analysis.comparison import Comparison, common_checkpoints, mean_over, number
from afteredit.analysis.style import FURTHEST, legend, styles
from afteredit.analysis.tidy import Run

EFFICACY = {
    "editing/retained/generated/efficacy": "greedy text begins with the new target",
    "editing/retained/prob/efficacy": "new target likelier than the true one",
}
N_CHOSEN = 3
WARNING = 1.1  # perplexity past this multiple of the unedited model's is a warning: 10 %, as the first loss looked for


def trade_off(x: Comparison) -> Figure:
    """A path per method, checkpoint after checkpoint; up and to the right is better."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained", sharex=True, sharey=True)
    look = styles(list(x.runs))
    ends = {label: common_checkpoints(runs)[-1] for label, runs in x.runs.items()}
    for axis, (key, title) in zip(axes, EFFICACY.items(), strict=True):
        for label, runs in x.runs.items():
            edited = [n for n in common_checkpoints(runs) if n > 0]
            kept, wrote = ([mean_over(runs, n, number(k, 100)) for n in edited] for k in ("ability/retained", key))
            axis.plot(kept, wrote, linewidth=1, alpha=0.8, markersize=4, **look[label])
            axis.plot(kept[-1:], wrote[-1:], markersize=10, markeredgecolor="black", **look[label])
            if kept and ends[label] < max(ends.values()):  # stopped before the others
                axis.annotate(f"{edited[-1]} edits", (kept[-1], wrote[-1]), xytext=(8, 6), textcoords="offset points",
                              fontsize=8)  # fmt: skip
            if len(runs) > 1:
                seeds = [tuple(100 * run.rows[-1].get(k, math.nan) for k in ("ability/retained", key)) for run in runs]
                axis.scatter(*zip(*seeds, strict=True), s=22, marker=look[label]["marker"], facecolors="none",
                             edgecolors=look[label]["color"], linewidths=0.8)  # fmt: skip
        axis.axvline(100, color="0.25", linewidth=0.9)
        axis.set(title=f"Efficacy: {title}", xlabel="ability retained (% of unedited − chance)", ylim=(-3, 106))
        axis.title.set_fontsize(10)
        axis.grid(alpha=0.25)
    left, right = axes[0].get_xlim()
    axes[0].set_xlim(min(left, 75), max(right, 102))
    axes[0].set_ylabel(f"retained edits (%)\nlarge mark: after {max(ends.values())} edits")
    legend(figure, x, look, seeds="hollow: one seed")
    return figure


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
             | {"all measurable": mean_over(runs, n_edits, number("ability/retained"))}
             for label, runs in x.runs.items()}  # fmt: skip
    return pd.DataFrame.from_dict(table, orient="index")


def heat_map(x: Comparison, chosen: Sequence[int]) -> Figure:
    """What is left of each ability after the chosen numbers of edits."""
    n_rows = len(x.runs)
    figure, axes = plt.subplots(len(chosen), 1, figsize=(11, 1.1 + len(chosen) * (0.65 + 0.36 * n_rows)), squeeze=False,
                                layout="constrained", sharex=True)  # fmt: skip
    for axis, n_edits in zip(axes[:, 0], chosen, strict=True):
        table = 100 * shares(x, n_edits)
        image = axis.imshow(table.to_numpy(), cmap="cividis", vmin=0, vmax=100, aspect="auto")
        for (i, j), value in np.ndenumerate(table.to_numpy()):
            nothing = "n. m." if j < len(x.first.abilities) and x.first.abilities[j] not in x.measurable else "–"
            axis.text(j, i, nothing if math.isnan(value) else f"{value:.0f}", ha="center", va="center", fontsize=9,
                      color="white" if value < 55 else "black")  # fmt: skip
        axis.set_yticks(range(n_rows), list(table.index), fontsize=9)
        axis.set_xticks(range(table.shape[1]), list(table.columns), rotation=25, ha="right", fontsize=9)
        axis.set_title(f"after {n_edits} edits", fontsize=10, loc="left")
        axis.axvline(table.shape[1] - 1.5, color="white", linewidth=3)
    figure.colorbar(image, ax=axes[:, 0], label="share of unedited − chance (%)", fraction=0.03, pad=0.02)
    return figure


def drift_points(runs: Sequence[Run], kind: str) -> list[np.ndarray]:
    """Per run the (drift, share retained) of its checkpoints after 0; `kind`: perplexity (as a multiple of the
    unedited model's) or relative_norm (the largest over layers)."""
    by_run = []
    for run in runs:
        points = [(drift(run, row, kind), row.get("ability/retained", math.nan)) for row in run.rows[1:]]
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
        "perplexity": f"perplexity ÷ unedited model's (above {FURTHEST}: at {FURTHEST})",
        "relative_norm": "‖W − W₀‖ ÷ ‖W₀‖, the most changed matrix",
    }
    for axis, (kind, found) in zip(axes, correlations(x).items(), strict=True):
        drawn = []
        for label, runs in x.runs.items():
            for points in drift_points(runs, kind):
                shown = np.minimum(points[:, 0], FURTHEST)
                axis.plot(shown, 100 * points[:, 1], alpha=0.75, markersize=5, **{**look[label], "linestyle": "none"})
                drawn += list(shown)
        axis.axhline(100, color="0.25", linewidth=0.9)
        axis.axhline(0, color="0.25", linewidth=0.9, linestyle=":")
        if kind == "perplexity":
            axis.axvline(WARNING, color="0.25", linewidth=0.9, linestyle="--")
        _log_where_wide(axis, drawn)
        axis.set(
            title=correlation_text(found), xlabel=titles[kind] + (" (log scale)" if axis.get_xscale() == "log" else "")
        )
        axis.title.set_fontsize(10)
        axis.grid(alpha=0.25)
    axes[0].set_ylabel("ability retained (% of unedited − chance)")
    legend(figure, x, {label: {**style, "linestyle": "none"} for label, style in look.items()})
    return figure


def correlation_text(found: statistics.Correlation) -> str:
    if math.isnan(found.rho):
        return "rank correlation: not defined here"
    if math.isnan(found.low):
        return f"Spearman ρ = {found.rho:.2f} ({found.n_points} checkpoints: too few for an interval)"
    return f"Spearman ρ = {found.rho:.2f}, 95 % interval [{found.low:.2f}, {found.high:.2f}] over {found.over}"


def _log_where_wide(axis: Axes, values: Sequence[float]) -> None:
    positive = [value for value in values if value > 0]
    if positive and max(positive) > 5 * min(positive):
        axis.set_xscale("log")
        for written in (axis.xaxis.set_major_formatter, axis.xaxis.set_minor_formatter):
            written(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.6)))  # 0.2, not 2 × 10⁻¹
