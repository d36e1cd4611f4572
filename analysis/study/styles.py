"""Gives each curve of a picture its colour, marker and name; a curve of ours and the published one share a colour."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from afteredit.analysis.pictures.axes import COLOURS, MARKERS
from afteredit.analysis.study.published import published_as

CURVE = ["method", "constraint", "batch_size"]  # what the curves of a picture are known by
THEIR_MARKS = {"gpt2-xl": "x", "llama-7b": "+"}


@dataclass(frozen=True)
class Style:
    """Holds how a curve is drawn; `hollow` tells apart two of ours that stand beside the same published one.

    The curve that others are compared with, all that is kept, is wide: it is seen under a curve that coincides.
    """

    colour: str
    width: float
    marker: str
    hollow: bool
    label: str


def styles(*tables: pd.DataFrame) -> dict[tuple, Style]:
    """Returns every curve of the tables once: all that is kept first, then by the share that is kept, then by size."""
    curves = sorted({curve for table in tables for curve in table[CURVE].itertuples(index=False, name=None)}, key=_rank)
    colours: dict[tuple, str] = {}
    for method, constraint, size in curves:
        colours.setdefault((method, published_as(constraint), size), COLOURS[len(colours) % len(COLOURS)])
    several = len({constraint for _, constraint, _ in curves}) > 1
    found = {}
    for i, (method, constraint, size) in enumerate(curves):
        beside = published_as(constraint)
        found[method, constraint, size] = Style(
            colours[method, beside, size], 3.4 if several and constraint == "none" else 1.7, MARKERS[i % len(MARKERS)],
            constraint != beside, _label(curves[i], curves),
        )  # fmt: skip
    return found


def _rank(curve: tuple) -> tuple:
    method, constraint, size = curve
    kind, _, keep = constraint.rpartition("_")
    kinds = {"rect": 0, "random": 1, "pca": 2}
    return method, size, constraint != "none", kinds.get(kind, 3), -float(keep) if kind else 0


def _label(curve: tuple, curves: list[tuple]) -> str:
    method, constraint, size = curve
    methods, constraints, sizes = (set(names) for names in zip(*curves, strict=True))
    parts = [method] if len(methods) > 1 or len(curves) == 1 else []
    parts += [constraint.replace("_", " ").replace("none", "all kept")] if len(constraints) > 1 else []
    parts += [f"{size} facts a round"] if len(sizes) > 1 else []
    return ", ".join(parts) or method
