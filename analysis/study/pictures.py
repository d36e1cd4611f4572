"""Draws the published figures with our points and the published values as a second mark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from afteredit.analysis.study.bars import draw_bars, patch
from afteredit.analysis.study.curves import draw_curves, marks
from afteredit.analysis.study.points import in_first_order
from afteredit.analysis.study.published import FIGURES, MODELS
from afteredit.analysis.study.styles import THEIR_MARKS, Style, styles

WIDEST = 150  # letters in a line under the panels
TITLES = {"reasoning": "reasoning (GSM8K)", "nli": "NLI (RTE)", "open_qa": "open-domain QA (NQ)",
          "closed_qa": "closed-domain QA (BoolQ)", "dialogue": "dialogue (MuTual)",
          "summarization": "summarization (SAMSum)", "ner": "named entities (CoNLL-03)",
          "sentiment": "sentiment (SST-2)", "manhattan": "Manhattan distance of W",
          "moved_0.077": "entries moved > 7.7 %", "moved_0.171": "entries moved > 17.1 %"}  # fmt: skip


def draw(figure: str, model: str, ours: pd.DataFrame, theirs: pd.DataFrame, missing: Sequence[str] = ()) -> Figure:
    """Returns one picture: `ours` and `theirs` are the points of one figure, `missing` lines say what no run has.

    A panel is a quantity; where editing success is shown it is a method, as in the paper.
    """
    by_method = figure == "rect_editing"
    look = styles(ours, theirs)
    picture = (_method_panels if by_method else _quantity_panels)(figure, ours, theirs, look)
    legend = picture.legend(handles=_handles(look, ours, theirs, by_method), loc="outside lower center", ncols=4,
                            frameon=False, fontsize=9)  # fmt: skip
    if not by_method:  # there each missing bar says so itself
        legend.set_title("\n".join(fill(line, WIDEST) for line in missing))
        legend.get_title().set(color="0.45", fontsize=9)
    beside = ", ".join(dict.fromkeys(theirs["source"]))
    picture.suptitle(f"{FIGURES[figure].title}: {model}" + (
        f" beside Gu et al. (EMNLP 2024), {beside}" if beside else "; no values in Gu et al. (EMNLP 2024)"
    ), fontsize=11)  # fmt: skip
    return picture


def _quantity_panels(figure: str, ours: pd.DataFrame, theirs: pd.DataFrame, look: Mapping[tuple, Style]) -> Figure:
    quantities = FIGURES[figure].quantities
    columns = min(4, len(quantities))
    rows = -(-len(quantities) // columns)
    picture, axes = plt.subplots(rows, columns, figsize=(4.1 * columns, 3.1 * rows + 1.4), squeeze=False,
                                 layout="constrained")  # fmt: skip
    for axis, quantity in zip(axes.flat, quantities, strict=True):
        here, there = (points[points["quantity"] == quantity] for points in (ours, theirs))
        axis.set_title(TITLES[quantity], fontsize=10)
        axis.grid(alpha=0.25)
        draw_curves(axis, here, there, look)
        axis.set_ylim(bottom=0)
        if here.empty:
            axis.text(0.5, 0.5, "not run", transform=axis.transAxes, ha="center", color="0.4", fontsize=13)
    for axis in axes[-1]:
        axis.set_xlabel(FIGURES[figure].x)
    return picture


def _method_panels(figure: str, ours: pd.DataFrame, theirs: pd.DataFrame, look: Mapping[tuple, Style]) -> Figure:
    methods = sorted({method for method, _, _ in look})
    picture, axes = plt.subplots(len(methods), 1, figsize=(12.3, 3.2 * len(methods) + 1.3), squeeze=False,
                                 layout="constrained")  # fmt: skip
    for axis, method in zip(axes.flat, methods, strict=True):
        here, there = (points[points["method"] == method] for points in (ours, theirs))
        axis.set_title(method, fontsize=10)
        axis.grid(alpha=0.25)
        draw_bars(axis, here, there, {curve: style for curve, style in look.items() if curve[0] == method})
        axis.set_ylim(bottom=0)
    return picture


def _handles(look: Mapping[tuple, Style], ours: pd.DataFrame, theirs: pd.DataFrame, bars: bool) -> list[Artist]:
    handles: list[Artist] = [
        patch(style) if bars else Line2D([], [], label=style.label, **marks(style)) for style in look.values()
    ]
    if {"paper", "clean"} <= set(ours["scoring"]):
        handles += [Line2D([], [], color="0.3", label="scored as the paper scored"),
                    Line2D([], [], color="0.3", linestyle="--", label="clean tasks")]  # fmt: skip
    if not bars and not in_first_order(ours).all():
        handles.append(Line2D([], [], color="0.3", linewidth=0.7, label="other orders of the edit set"))
    for model in (model for model in MODELS if model in set(theirs["model"])):
        handles.append(Line2D([], [], color="0.3", linestyle="" if bars else ":", marker=THEIR_MARKS[model],
                              label=f"published, {MODELS[model]}"))  # fmt: skip
    return handles
