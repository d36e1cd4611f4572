"""Finds where the numbers of a run stand in the figures of Gu et al.: which figure, which curve, which x."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from afteredit.analysis.numbers.single_edits import COVERED, IMMEDIATE, each_edit_once
from afteredit.analysis.read.run import Run, at
from afteredit.analysis.study.published import FIGURES, SUCCESS
from afteredit.evaluate.retention import PAPER

CONSTRAINTS = {"Unconstrained": "none", "Rect": "rect", "RandomEntries": "random", "Pca": "pca",
               "PcaPublished": "pca_published"}  # fmt: skip
FILE_ORDER = "file"


@dataclass(frozen=True)
class Place:
    """Holds where a number of a run belongs, and the key that it stands under in the run's row at `n_edits`."""

    figure: str
    batch_size: int
    x: int
    quantity: str
    scoring: str  # paper, clean, or empty where abilities are not scored
    key: str
    n_edits: int


def places(run: Run, method: str, constraint: str) -> Iterator[Place]:
    """Yields the places of all numbers of a run in the published figures, and of runs that would stand there."""
    size = int(run.config.get("batch_size", 1))
    for n_edits in [int(row["n_edits"]) for row in run.rows]:
        for ability in run.abilities:
            scoring = "paper" if ability.startswith(PAPER) else "clean"
            quantity, key = ability.removeprefix(PAPER), f"ability/{ability}"
            if run.single and constraint == "none":
                yield Place("batch", 0, n_edits, quantity, scoring, key, n_edits)
            elif not run.single and size == 1:
                if constraint == "none":
                    yield Place("sequential", 1, n_edits, quantity, scoring, key, n_edits)
                if method == "rome_published" and quantity in FIGURES["rect_general"].quantities:
                    yield Place("rect_general", 1, n_edits, quantity, scoring, key, n_edits)
            elif not run.single and constraint == "none" and n_edits % size == 0:
                yield Place("batch_sequential", size, n_edits // size, quantity, scoring, key, n_edits)
        if run.single and size == 1 and (run.row(n_edits) or {}).get(COVERED, 0) > 1:  # one alone is a batch of one
            for quantity, probe in SUCCESS.items():
                yield Place("rect_editing", 1, 1, quantity, "", f"{IMMEDIATE}forced/{probe}", n_edits)
        if not run.single and size == 1 and constraint == "none" and n_edits:
            for key in (key for key in run.row(n_edits) or {} if key.startswith("drift/")):
                quantity = key.rpartition("/")[2]
                if quantity in FIGURES["change_statistics"].quantities:
                    yield Place("change_statistics", 1, n_edits, quantity, "", key, n_edits)


def constraint_name(config: Any) -> str:
    """Returns `none`, or a name with the share that is kept: `rect_0.4`."""
    kind = str(at(config, "constraint._target_") or "Unconstrained").rpartition(".")[2]
    keep = at(config, "constraint.keep")
    return CONSTRAINTS.get(kind, kind.lower()) + (f"_{keep:g}" if keep is not None else "")


def order_name(run: Run) -> str:
    """Returns the order of the run's facts: `file`, as of older versions that had no other, or `shuffled 1` by seed."""
    order = str(at(run.config, "edits.order", FILE_ORDER))
    return order if order == FILE_ORDER else f"{order} {run.seed}"


def rows_of(run: Run, place: Place) -> list[int]:
    """Returns after how many edits the stored rows are that the number comes from.

    It is one row; with setting=single, where each row is another model, those that the number is the mean of.
    """
    if not run.models or place.n_edits == 0:
        return [place.n_edits]
    models = each_edit_once(run.models) if place.key.startswith(IMMEDIATE) else run.models
    return sorted(int(model["n_edits"]) for model in models if place.key in model)
