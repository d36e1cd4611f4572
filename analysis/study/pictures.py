"""Draws the published figures with our points and the published values as a second mark."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from afteredit.analysis.pictures.axes import COLOURS, MARKERS
from afteredit.analysis.study.published import FIGURES, MODELS

CURVE = ["method", "constraint", "batch_size"]
MOST_BANDS = 3  # curves in a panel; the bands of more hide each other
THEIR_MARKS = {"gpt2-xl": "x", "llama-7b": "+"}
TITLES = {"reasoning": "reasoning (GSM8K)", "nli": "NLI (RTE)", "open_qa": "open-domain QA (NQ)",
          "closed_qa": "closed-domain QA (BoolQ)", "dialogue": "dialogue (MuTual)",
          "summarization": "summarization (SAMSum)", "ner": "named entities (CoNLL-03)",
          "sentiment": "sentiment (SST-2)", "manhattan": "Manhattan distance of W",
          "moved_0.077": "entries moved > 7.7 %", "moved_0.171": "entries moved > 17.1 %"}  # fmt: skip


def draw(figure: str, model: str, ours: pd.DataFrame, theirs: pd.DataFrame) -> Figure:
    """Returns one picture: `ours` and `theirs` are the points of one figure; a curve's colour is the same in both."""
    arranged = FIGURES[figure]
    curves = _curves(ours, theirs)
    styles = {curve: {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
              for i, curve in enumerate(curves)}  # fmt: skip
    columns = min(4, len(arranged.quantities))
    rows = -(-len(arranged.quantities) // columns)
    picture, axes = plt.subplots(rows, columns, figsize=(4.1 * columns, 3.1 * rows + 1.4), squeeze=False,
                                 layout="constrained")  # fmt: skip
    for axis, quantity in zip(axes.flat, arranged.quantities, strict=True):
        here, there = (points[points["quantity"] == quantity] for points in (ours, theirs))
        (_bars if figure == "rect_editing" else _lines)(axis, here, there, styles)
        axis.set_title(TITLES.get(quantity, quantity), fontsize=10)
        axis.grid(alpha=0.25)
        axis.set_ylim(bottom=0)
        if here.empty:
            axis.text(0.5, 0.5, "not run", transform=axis.transAxes, ha="center", color="0.4", fontsize=13)
    for axis in axes[-1] if figure != "rect_editing" else ():
        axis.set_xlabel(arranged.x)
    picture.legend(
        handles=_handles(styles, ours, theirs), loc="outside lower center", ncols=4, frameon=False, fontsize=9
    )
    picture.suptitle(f"{arranged.title}: {model} beside Gu et al. (EMNLP 2024), {arranged.source}", fontsize=11)
    return picture


def _lines(axis: Axes, ours: pd.DataFrame, theirs: pd.DataFrame, styles: dict) -> None:
    ticks = sorted({*ours["x"], *theirs["x"]})
    spread = len(ticks) > 2 and ticks[-1] > 40 * max(ticks[1], 1)  # batch sizes: every size has the same room
    place = {x: float(i) if spread else float(x) for i, x in enumerate(ticks)}
    few = len(styles) <= MOST_BANDS
    for (curve, scoring), points in _grouped(ours, [*CURVE, "scoring"]):
        x, style = points["x"].map(place), styles[curve]
        dash = "--" if scoring == "clean" else "-"
        axis.plot(x, points["value"], linestyle=dash, markersize=4.5, linewidth=1.7, **style)
        base = points["value"] - points["change"]
        if few and points["low"].notna().any():
            axis.fill_between(
                x, base + points["low"], base + points["high"], color=style["color"], alpha=0.12, linewidth=0
            )
    for (curve, model), points in _grouped(theirs, [*CURVE, "model"]):
        axis.plot(points["x"].map(place), points["value"], linestyle=":", linewidth=0.9, markersize=6.5,
                  color=styles[curve]["color"], marker=THEIR_MARKS[model])  # fmt: skip
    shown = ticks if spread else sorted(set(ours["x"])) or ticks
    axis.set_xticks([place[x] for x in shown], [f"{x:,}" if x or not spread else "none" for x in shown], fontsize=8)


def _bars(axis: Axes, ours: pd.DataFrame, theirs: pd.DataFrame, styles: dict) -> None:
    for i, (curve, style) in enumerate(styles.items()):
        (_, constraint, _) = curve
        for points in (points for (key, _), points in _grouped(ours, [*CURVE, "scoring"]) if key == curve):
            point = points.iloc[0]
            axis.bar(i, point["value"], color=style["color"], alpha=0.75)
            if not np.isnan(point["low"]):
                axis.plot([i, i], [point["low"], point["high"]], color="0.2", linewidth=1)
        for (key, model), points in _grouped(theirs, [*CURVE, "model"]):
            if key == curve:
                axis.plot(i, points["value"].iloc[0], color="black", marker=THEIR_MARKS[model], markersize=7)
    labels = [constraint.replace("_", " ").replace("none", "all") for _, constraint, _ in styles]
    axis.set_xticks(range(len(styles)), labels, rotation=40, ha="right", fontsize=8)


def _curves(*tables: pd.DataFrame) -> list[tuple]:
    """Returns every curve once: all that is kept first, then by the share that is kept, then the batch size."""
    found = {curve for table in tables for curve in table[CURVE].itertuples(index=False, name=None)}

    def order(curve: tuple) -> tuple:
        method, constraint, size = curve
        kind, _, keep = constraint.rpartition("_")
        return (
            method,
            size,
            constraint != "none",
            {"rect": 0, "random": 1, "pca": 2}.get(kind, 3),
            -float(keep) if kind else 0,
        )

    return sorted(found, key=order)


def _grouped(points: pd.DataFrame, keys: list[str]):
    for key, group in points.sort_values("x").groupby(keys, sort=False):
        yield (key[: len(CURVE)], key[-1]), group


def _handles(styles: dict, ours: pd.DataFrame, theirs: pd.DataFrame) -> list[Line2D]:
    handles = [Line2D([], [], linewidth=1.7, label=_label(curve, styles), **style) for curve, style in styles.items()]
    scorings = set(ours["scoring"])
    if {"paper", "clean"} <= scorings:
        handles += [Line2D([], [], color="0.3", label="scored as the paper scored"),
                    Line2D([], [], color="0.3", linestyle="--", label="clean tasks")]  # fmt: skip
    for model in (model for model in MODELS if model in set(theirs["model"])):
        label = f"published, {MODELS[model]}"
        handles.append(Line2D([], [], color="0.3", linestyle=":", marker=THEIR_MARKS[model], label=label))
    return handles


def _label(curve: tuple, styles: dict) -> str:
    method, constraint, size = curve
    parts = [method] if len({key[0] for key in styles}) > 1 or len(styles) == 1 else []
    parts += [constraint.replace("_", " ").replace("none", "all kept")] if len({key[1] for key in styles}) > 1 else []
    parts += [f"{size} facts a round"] if len({key[2] for key in styles}) > 1 else []
    return ", ".join(parts) or method
