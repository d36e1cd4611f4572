"""Sorts long runs into the lines of a picture: one for each method and batch size, whatever the seed and the order."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from afteredit.analysis.numbers.method_names import by_method, comparison_title
from afteredit.analysis.read.run import Run, at
from afteredit.record.environment import RUN
from afteredit.store.errors import BadInput

log = logging.getLogger(__name__)

RECIPE = "least_harm"
FILE = Path(__file__).resolve().parents[2] / "conf" / "experiment" / f"{RECIPE}.yaml"


def panels(runs: Sequence[Run]) -> dict[str, dict[str, list[Run]]]:
    """Returns the lines by title: runs of one model and one set of facts that were measured alike share a picture.

    Raises BadInput where none has edits that add up.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        why = left_out(run)
        if why:
            log.warning("%s is left out: %s", run.name, why)
        else:
            groups.setdefault(comparison_title(run), []).append(run)
    if not groups:
        raise BadInput(f"none of these runs has edits in sequence; make some: {RUN} experiment=limits "
                       "method=memit_seq data=<folder>")  # fmt: skip
    return {title: by_method([_as_line(run) for run in group]) for title, group in sorted(groups.items())}


def left_out(run: Run) -> str | None:
    """Returns in words why a run makes no line; None where it makes one."""
    if run.single:
        return "its edits do not add up (setting=single)"
    return None if run.n_edits else "it has no edits yet"


def _as_line(run: Run) -> Run:
    """Returns the run under the name of its line, the recipe's where it is that, without the order of its facts; its
    `editing/retained` is over all edits."""
    run = replace(run, rows=[over_all_edits(row) for row in run.rows])
    edits = run.config.get("edits")
    if isinstance(edits, Mapping):
        run = replace(run, config={**run.config, "edits": {k: v for k, v in edits.items() if k != "order"}})
    if run.method == _recipe_method() and all(at(run.config, f"method.{k}") == v for k, v in _recipe().items()):
        run = replace(run, name=RECIPE + run.name.removeprefix(run.method))
    return run


def over_all_edits(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a row whose `editing/retained` is over all edits: as measured where they were, else as estimated.

    A row that has neither was measured on all, or comes from before there was an estimate.
    """
    found = dict(row)
    for better in ("editing/retained_estimate/", "editing/retained_by_all/"):
        found |= {f"editing/retained/{key.removeprefix(better)}": row[key] for key in row if key.startswith(better)}
    return found


@cache
def _written() -> Mapping[str, Any]:
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


def _recipe() -> Mapping[str, Any]:
    """Returns the keys of its method that the recipe sets."""
    return _written()["method"]


def _recipe_method() -> str:
    return next(entry["override /method"] for entry in _written()["defaults"] if "override /method" in entry)
