"""The look of the report's figures: methods differ in colour, marker and dash, a legend stands above all panels, and a
caption below them says what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from afteredit.analysis.numbers.comparison import Comparison
from afteredit.analysis.pictures.axes import COLOURS, DASHES, MARKERS, at_least, edits_axis
from afteredit.analysis.read.run import Run
from afteredit.record.terminal import so_many_edits

TOGETHER = 4  # methods in one panel with their bands; more overlap
RETAINED_LABEL = "ability retained\n(% of the unedited score above chance)"
NEAR_CHANCE = 25  # % retained: where anything falls below it, chance (0) is shown too
WIDTH = 145  # characters in a row of the legend
Styles = Mapping[str, Mapping[str, Any]]


def styles(labels: Sequence[str]) -> Styles:
    """Returns label, colour, marker and dash of each method, the same in every figure; 32 differ even without colour.

    The label says to the page to which method a line belongs (live_panels.py).
    """
    rounds = [(i, i // len(COLOURS)) for i in range(len(labels))]
    return {label: {"label": label, "color": COLOURS[i % len(COLOURS)], "marker": MARKERS[(i + again) % len(MARKERS)],
                    "linestyle": DASHES[(i + 2 * again) % len(DASHES)]}
            for label, (i, again) in zip(labels, rounds, strict=True)}  # fmt: skip


def about(runs: Sequence[Run]) -> str:
    """Returns seed and name of one run, or how many a mean is of: what the page shows where a curve is hovered."""
    return f"seed {runs[0].seed}\n{runs[0].name}" if len(runs) == 1 else f"mean of {len(runs)} runs"


def groups(labels: Sequence[str]) -> list[list[str]]:
    """Returns the methods in groups that one panel can show."""
    return [group.tolist() for group in np.array_split(list(labels), -(-len(labels) // TOGETHER))]


def finish(figure: Figure, axes: Sequence[Axes], comparison: Comparison, look: Styles, *,
           xlabels: Sequence[Axes] | None = None, grey: bool = False, chance: bool = False) -> None:  # fmt: skip
    """Adds grid, x-axis, marks where runs collapsed, one legend above all panels and the caption below."""
    collapsed = [(run, run.collapsed_at, look[label]) for label, runs in comparison.runs.items() if label in look
                 for run in runs if run.collapsed_at is not None]  # fmt: skip
    checkpoints = sorted({int(row["n_edits"]) for runs in comparison.runs.values() for run in runs for row in run.rows})
    for axis in axes:
        axis.grid(alpha=0.25)
        edits_axis(axis, checkpoints)
        for run, n_edits, style in collapsed:
            label = f"{style['label']}\n{about([run])}\ncollapsed after {so_many_edits(n_edits)}"
            axis.plot([n_edits], [0.03], marker="X", markersize=9, color=style["color"], markeredgecolor="black",
                      transform=axis.get_xaxis_transform(), clip_on=False, zorder=5, linestyle="none",
                      label=label)  # fmt: skip
    for axis in axes if xlabels is None else xlabels:
        axis.set_xlabel("edits applied")
    bands = any(axis.collections for axis in axes)
    legend(
        figure,
        comparison,
        look,
        seeds="one seed (thick: mean)",
        band=bands,
        grey=grey,
        chance=chance,
        collapse=bool(collapsed),
    )
    caption(figure, comparison)


def caption(figure: Figure, comparison: Comparison, note: str = "") -> None:
    """Writes what was measured in small print below all panels."""
    figure.supxlabel("\n".join(filter(None, (comparison.caption, note))), x=0.01, ha="left", fontsize=8, color="0.3")


def legend(figure: Figure, comparison: Comparison, look: Styles, *, seeds: str = "", band: bool = False,
           grey: bool = False, chance: bool = False, collapse: bool = False) -> None:  # fmt: skip
    """Adds one legend above all panels, of what is drawn only."""
    handles: list[Any] = [Line2D([], [], linewidth=1.9, markersize=6, **style) for style in look.values()]
    if seeds and any(len(runs) > 1 for runs in comparison.runs.values()):
        hollow: dict[str, Any] = (
            {"marker": "o", "markerfacecolor": "none", "linestyle": "none"} if "hollow" in seeds else {}
        )
        handles.append(Line2D([], [], color="0.3", linewidth=0.9, label=seeds, **hollow))
    if band:
        handles.append(Patch(color="0.5", alpha=0.3, linewidth=0, label="95 % over examples"))
    if chance:
        handles.append(Line2D([], [], color="0.25", linewidth=1.2, linestyle=":", label="chance"))
    if grey:
        handles.append(Line2D([], [], color="0.8", linewidth=1.5, label="other methods"))
    if collapse:
        handles.append(Line2D([], [], color="0.6", marker="X", markersize=9, markeredgecolor="black", linestyle="none",
                              label="collapse"))  # fmt: skip
    lengths = [len(str(handle.get_label())) + 9 for handle in handles]  # in characters, with the mark before it
    in_a_row = len(handles) if sum(lengths) <= WIDTH else max(1, WIDTH // max(lengths))
    figure.legend(handles=handles, loc="outside upper center", ncols=in_a_row, frameon=False, fontsize=9,
                  handlelength=3)  # fmt: skip


def retained_axis(axis: Axes) -> bool:
    """Fits the y-axis to what is drawn and to 100, the unedited model.

    Chance (0) is drawn, and True returned, only where something comes near it.
    """
    low, high = drawn_range(axis, "y")
    near = low < NEAR_CHANCE
    low, high = min(low, 0 if near else 100), max(high, 100)
    margin = max(0.06 * (high - low), 1)
    axis.set_ylim(low - margin, high + margin)
    at_least(axis, 10)
    for level, dash in [(100, "-"), *([(0, ":")] if near else [])]:
        axis.axhline(level, color="0.25", linewidth=1, linestyle=dash, zorder=1.5)
    axis.set_ylabel(RETAINED_LABEL)
    return near


def drawn_range(axis: Axes, which: str) -> tuple[float, float]:
    """Returns the least and greatest finite x or y of the axis's lines and bands; (100, 100) where there is none."""
    lines = [np.asarray(getattr(line, f"get_{which}data")(), dtype=float) for line in axis.lines]
    column = "xy".index(which)
    bands = [np.asarray(path.vertices)[:, column] for band in axis.collections for path in band.get_paths()]
    values = np.concatenate([*lines, *bands, np.empty(0)])
    values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if len(values) else (100.0, 100.0)
