"""How figures look: methods told apart by colour, marker and dash; axes, and the legend above all panels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")  # files only: no display is needed, none is opened
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.lines import Line2D  # noqa: E402
from matplotlib.patches import Patch  # noqa: E402
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, ScalarFormatter  # noqa: E402

from afteredit.analysis.comparison import Comparison  # noqa: E402
from afteredit.analysis.curves import COLOURS, MARKERS  # noqa: E402

FURTHEST = 1000  # a perplexity past so many times the unedited model's is drawn there: a broken model's is any number
WIDENING = 8  # the largest distance between checkpoints over the smallest, past which the x-axis is stretched
DASHES = ("-", "--", "-.", ":")
Styles = Mapping[str, Mapping[str, Any]]


def styles(labels: Sequence[str]) -> Styles:
    """Colour, marker and dash of each method, the same in every figure; 32 differ without colour."""
    rounds = [(i, i // len(COLOURS)) for i in range(len(labels))]
    return {label: {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[(i + again) % len(MARKERS)],
                    "linestyle": DASHES[(i + 2 * again) % len(DASHES)]}
            for label, (i, again) in zip(labels, rounds, strict=True)}  # fmt: skip


def finish(figure: Figure, axes: Sequence[Axes], x: Comparison, look: Styles, *,
           xlabels: Sequence[Axes] | None = None, grey: bool = False, chance: bool = False) -> None:  # fmt: skip
    """Grid, units of the x-axis, where runs collapsed, and one legend above all panels."""
    collapsed = [(run.collapsed_at, look[label]) for label, runs in x.runs.items() if label in look for run in runs
                 if run.collapsed_at is not None]  # fmt: skip
    checkpoints = sorted({int(row["n_edits"]) for runs in x.runs.values() for run in runs for row in run.rows})
    for axis in axes:
        axis.grid(alpha=0.25)
        _edits_axis(axis, checkpoints)
        for n_edits, style in collapsed:
            axis.plot([n_edits], [0.03], marker="X", markersize=9, color=style["color"], markeredgecolor="black",
                      transform=axis.get_xaxis_transform(), clip_on=False, zorder=5, linestyle="none")  # fmt: skip
    for axis in axes if xlabels is None else xlabels:
        axis.set_xlabel("edits applied")
    legend(figure, x, look, seeds="one seed", grey=grey, chance=chance, collapse=bool(collapsed))


def legend(figure: Figure, x: Comparison, look: Styles, *, seeds: str = "", grey: bool = False, chance: bool = False,
           collapse: bool = False) -> None:  # fmt: skip
    """One for all panels, above them."""
    handles: list[Any] = [Line2D([], [], linewidth=1.9, markersize=6, label=label, **style)
                          for label, style in look.items()]  # fmt: skip
    if seeds and any(len(runs) > 1 for runs in x.runs.values()):
        hollow: dict[str, Any] = (
            {"marker": "o", "markerfacecolor": "none", "linestyle": "none"} if "hollow" in seeds else {}
        )
        handles.append(Line2D([], [], color="0.3", linewidth=0.7, label=seeds, **hollow))
    if chance:
        handles.append(Line2D([], [], color="0.25", linewidth=1.2, linestyle=":", label="chance"))
    if grey:
        handles.append(Patch(color="0.8", label="other methods"))
    if collapse:
        handles.append(Line2D([], [], color="0.6", marker="X", markersize=9, markeredgecolor="black", linestyle="none",
                              label="collapse"))  # fmt: skip
    widest = max(len(str(handle.get_label())) for handle in handles)
    figure.legend(handles=handles, loc="outside upper center", ncols=max(1, min(len(handles), 140 // (widest + 8))),
                  frameon=False, fontsize=9, handlelength=3)  # fmt: skip


def log_where_wide(axis: Axes) -> None:
    """A log y-axis where values span more than fivefold; else ±20 % at least, so that 1 % is no cliff."""
    drawn = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axis.lines])
    drawn = drawn[np.isfinite(drawn) & (drawn > 0)]
    if len(drawn) and drawn.max() > 5 * drawn.min():
        axis.set(yscale="log", ylabel=f"{axis.get_ylabel()} (log scale)")
    elif len(drawn):
        axis.set_ylim(0.8 * drawn.min(), 1.2 * drawn.max())


def at_least(axis: Axes, span: float) -> None:
    """Widens the y-axis to `span`, so that nothing moving does not look like much."""
    low, high = axis.get_ylim()
    if high - low < span:
        axis.set_ylim((low + high - span) / 2, (low + high + span) / 2)


def _edits_axis(axis: Axes, checkpoints: Sequence[int]) -> None:
    """Ticks at the checkpoints where they are few; a stretched scale where their distances grow manyfold."""
    gaps, last = np.diff(checkpoints), max(checkpoints[-1], 1)
    if len(gaps) > 1 and gaps.max() > WIDENING * gaps.min():
        axis.set_xscale("symlog", linthresh=checkpoints[1])
        axis.set_xlim(-0.08 * checkpoints[1], 1.15 * last)
    else:
        axis.set_xlim(-0.04 * last, 1.04 * last)
    few = len(checkpoints) <= 9
    axis.xaxis.set_major_locator(FixedLocator(checkpoints) if few else MaxNLocator(integer=True))
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.xaxis.set_minor_locator(NullLocator())
