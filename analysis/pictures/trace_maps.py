"""Draws a causal trace as in Meng et al. 2022: heat maps of average indirect effects by token role and block, and the
same numbers with their 95 % bands at the tokens where they are greatest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from afteredit.analysis.pictures.axes import COLOURS, DASHES, as_png
from afteredit.store.atomic_files import write_atomically

TITLES = {"hidden": "hidden state after one block", "mlp": "MLP outputs", "attention": "attention outputs"}
MAPS = {"hidden": "Purples", "mlp": "Greens", "attention": "Reds"}
LINES = ("first subject token", "last subject token", "last token")  # drawn with their bands


def draw_trace(traced: Mapping[str, Any], path: Path) -> None:
    """Writes the picture of a trace (commands/locate/trace.py) as a PNG file."""
    write_atomically(path, as_png(trace_figure(traced), dpi=130))


def trace_figure(traced: Mapping[str, Any]) -> Figure:
    """Returns a column for each kind of state: its heat map, and below it the lines with their bands."""
    kinds = list(traced["averages"])
    figure, axes = plt.subplots(2, len(kinds), figsize=(5.2 * len(kinds), 6.4), layout="constrained", squeeze=False,
                                sharex=True)  # fmt: skip
    for (upper, lower), kind in zip(axes.T, kinds, strict=True):
        window = "" if kind == "hidden" else f" over {traced['window']} blocks"
        _heat_map(figure, upper, traced["averages"][kind], kind)
        upper.set_title(f"{TITLES[kind]}{window} put back", fontsize=10)
        if kind != kinds[0]:
            upper.set_yticklabels([])
        _lines(lower, traced, kind)
    limits = [axis.get_ylim() for axis in axes[1]]
    for axis in axes[1]:
        axis.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
    axes[1][0].set_ylabel("average indirect effect\non p(answer)")
    handles, labels = axes[1][kinds.index("mlp")].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=5, frameon=False, fontsize=9)
    figure.supxlabel(_caption(traced), x=0.01, ha="left", fontsize=8, color="0.3")
    return figure


def _heat_map(figure: Figure, axis: Axes, by_role: Mapping[str, Mapping[str, Any]], kind: str) -> None:
    table = np.array([values["mean"] for values in by_role.values()])
    image = axis.imshow(table, cmap=MAPS[kind], aspect="auto", vmin=min(0.0, float(table.min())))
    axis.set_yticks(range(len(by_role)), list(by_role), fontsize=8)
    figure.colorbar(image, ax=axis, orientation="horizontal", location="top", shrink=0.7, pad=0.02).ax.tick_params(
        labelsize=7
    )


def _lines(axis: Axes, traced: Mapping[str, Any], kind: str) -> None:
    blocks = np.arange(traced["blocks"])
    for i, role in enumerate(role for role in LINES if role in traced["averages"][kind]):
        values = traced["averages"][kind][role]
        axis.plot(blocks, values["mean"], color=COLOURS[i], linestyle=DASHES[i], linewidth=1.7, label=role)
        axis.fill_between(blocks, values["low"], values["high"], color=COLOURS[i], alpha=0.18, linewidth=0)
    if kind == "mlp":
        layers = traced["proposed"]["memit.layers"]
        axis.axvspan(layers[0] - 0.5, layers[-1] + 0.5, color="0.88", zorder=0, label="proposed memit.layers")
        axis.axvline(traced["proposed"]["rome.layer"], color="0.3", linewidth=1, label="proposed rome.layer")
    axis.axhline(0, color="0.5", linewidth=0.8)
    axis.set_xlabel("block, or centre of the window")
    axis.grid(alpha=0.25)


def _caption(traced: Mapping[str, Any]) -> str:
    weights = f" ({traced['weights']})" if traced.get("weights") else ""  # older files do not say it
    return (
        f"{traced['model']}{weights}: {traced['known']} facts of edits={traced['edits']} that it knows, of "
        f"{traced['asked']}.  p(first token of the answer): {traced['clean']:.2f}, with noise of {traced['noise']:g} "
        f"standard deviations on the subject's embeddings {traced['corrupted']:.2f} ({traced['samples']} draws).\n"
        "Bands: 95 % over facts.  A token has one role: a subject's only token is its last; what ends the prompt is "
        "the last token."
    )
