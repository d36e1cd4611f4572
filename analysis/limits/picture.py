"""Draws abilities retained and edits retained over the number of edits, on a logarithmic axis, all methods together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from afteredit.analysis.numbers.run_values import number
from afteredit.analysis.pictures.axes import at_least, log_axis
from afteredit.analysis.pictures.method_curves import draw_runs_and_mean
from afteredit.analysis.pictures.report_style import Styles, styles
from afteredit.analysis.read.run import Run

PANELS = {"ability/retained": "abilities retained, mean over the measurable ones",
          "editing/retained/prob/efficacy": "edits retained: new answer likelier than the true one",
          "editing/retained/generated/efficacy": "edits retained: new answer said"}  # fmt: skip
IN_A_ROW = 5  # entries of the legend


def draw(title: str, lines: Mapping[str, Sequence[Run]]) -> Figure:
    """Returns one picture of three panels.  Several runs of one line: thick their mean, thin each of them."""
    look = styles(list(lines))
    figure, axes = plt.subplots(1, len(PANELS), figsize=(15, 5.2), layout="constrained", sharey=True)
    for axis, (key, heading) in zip(axes, PANELS.items(), strict=True):
        _panel(axis, key, lines, look)
        axis.set_title(heading, fontsize=10)
    axes[0].set_ylabel("% of the unedited model's score above chance (left)\nor of the edits (others)")
    handles = [Line2D([], [], linewidth=1.9, markersize=6, **style) for style in look.values()]
    if any(run.collapsed_at is not None for runs in lines.values() for run in runs):
        handles.append(Line2D([], [], color="0.6", marker="X", markersize=9, markeredgecolor="black",
                              linestyle="none", label="collapse"))  # fmt: skip
    figure.legend(
        handles=handles, loc="outside upper center", ncols=IN_A_ROW, frameon=False, fontsize=9, handlelength=3
    )
    figure.supxlabel(title, x=0.01, ha="left", fontsize=8, color="0.3")
    return figure


def _panel(axis: Axes, key: str, lines: Mapping[str, Sequence[Run]], look: Styles) -> None:
    for label, runs in lines.items():
        edited = [replace(run, rows=run.edited) for run in runs]  # 0 has no place on a logarithmic axis
        draw_runs_and_mean(axis, edited, number(key, 100), look[label])
        for run in runs:
            if run.collapsed_at is not None:
                axis.plot([run.collapsed_at], [0.03], marker="X", markersize=9, color=look[label]["color"],
                          markeredgecolor="black", transform=axis.get_xaxis_transform(), clip_on=False, zorder=5,
                          linestyle="none")  # fmt: skip
    measured = [int(row["n_edits"]) for runs in lines.values() for run in runs for row in run.rows[1:]]
    log_axis(axis, "x", 0.85 * min(measured), 1.2 * max(measured))
    axis.axhline(100, color="0.25", linewidth=1, zorder=1.5)
    axis.axhline(50, color="0.6", linewidth=0.8, linestyle=":", zorder=1.5)
    at_least(axis, 10)
    axis.set_xlabel("edits applied (logarithmic)")
    axis.grid(alpha=0.25)
