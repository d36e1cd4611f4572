"""Gathers what runs measured into the points of Gu et al.'s figures, one for each curve, order of facts and x."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from afteredit.analysis.numbers.method_names import differences, model_name
from afteredit.analysis.numbers.single_edits import averaged
from afteredit.analysis.read.run import Run, at
from afteredit.analysis.study.changes import change_of_ability, change_of_success
from afteredit.analysis.study.places import FILE_ORDER, Place, constraint_name, order_name, places, rows_of
from afteredit.analysis.study.published import KEY
from afteredit.store.errors import BadInput

log = logging.getLogger(__name__)

CURVE = ["model", "scoring", *KEY]
POINT = [*CURVE, "order", "x"]
COLUMNS = [*POINT, "value", "change", "low", "high", "band_low", "band_high", "unparseable", "measurable", "n_runs",
           "runs", "results", "n_edits", "key"]  # fmt: skip


def points(runs: Sequence[Run]) -> pd.DataFrame:
    """Returns one row per curve, order of facts and x: COLUMNS.

    `value` is the mean over `runs`; `change`, with its 95 % interval from `low` to `high`, is that of changes.py; the
    band around the value goes from `band_low` to `band_high`; `unparseable` is the share of answers that could not be
    read.  `results` and `n_edits` name, for each run, its file and the rows in it that hold `key`: the value is their
    mean.  Raises BadInput where runs of one point differ in more than the seed.
    """
    rows = []
    for run in _measured_alike(runs):
        run = averaged(run) if run.single else run
        method, constraint = run.method.partition("+")[0], constraint_name(run.config)
        for place in places(run, method, constraint):
            row = run.row(place.n_edits)
            if row is not None and place.key in row:
                curve = (model_name(run), place.scoring, place.figure, method, constraint, place.batch_size,
                         place.quantity)  # fmt: skip
                rows.append((*curve, order_name(run), place.x, run.name, place, run))
    table = pd.DataFrame(rows, columns=[*POINT, "name", "place", "run"])
    table = table.drop_duplicates([*POINT, "name"])  # two evaluations of one run may hold the same number
    groups = {key: list(group["run"]) for key, group in table.groupby(POINT)}
    first = table.groupby(POINT)["place"].first()
    found = []
    for key, members in groups.items():
        point = dict(zip(POINT, key, strict=True))
        whole = tuple(({**point, "constraint": "none"}).values())
        whole_runs = groups.get(whole, []) if whole != key else []
        found.append(_merged(point, first[key], sorted(members, key=lambda run: run.name), whole_runs))
    return pd.DataFrame(found, columns=COLUMNS)


def in_first_order(points: pd.DataFrame) -> pd.Series:
    """Tells of each point whether it is of its curve's first order of facts: file order, where a run has it."""
    rank = points["order"].map(lambda order: -1 if order == FILE_ORDER else int(order.rpartition(" ")[2]))
    return rank == rank.groupby([points[key] for key in CURVE]).transform("min")


def _measured_alike(runs: Sequence[Run]) -> list[Run]:
    """Returns the runs without those of a model whose abilities were scored on fewer rows than its other runs'."""
    most: dict[str, float] = {}
    limits = {id(run): at(run.config, "limit") or math.inf for run in runs}
    for run in (run for run in runs if run.abilities):
        most[model_name(run)] = max(most.get(model_name(run), 0), limits[id(run)])
    kept = [run for run in runs if not run.abilities or limits[id(run)] == most[model_name(run)]]
    for run in runs:
        if run not in kept:
            log.warning("%s is left out: limit=%g, where other runs of %s have %g rows per ability", run.name,
                        limits[id(run)], model_name(run), most[model_name(run)])  # fmt: skip
    return kept


def _merged(point: dict[str, Any], place: Place, runs: list[Run], whole_runs: list[Run]) -> dict[str, Any]:
    """Returns the point of all runs of one curve at one x; `whole_runs` are those with nothing left out of the edits.

    The unedited model stands at 0 in the curve of all batch sizes.
    """
    _refuse_unlike(runs, {"batch_size"} if place.figure == "batch" and not place.x else set())
    value = _mean(runs, place.key, place)
    n_edits = [",".join(map(str, rows_of(run, place))) for run in runs]
    point |= {"value": value, "change": value, "measurable": True, "n_runs": len(runs),
              "unparseable": _mean(runs, f"{place.key}/unparseable", place),
              "runs": " ".join(run.name for run in runs), "results": " ".join(map(_results, runs)),
              "n_edits": " ".join(n_edits), "key": place.key}  # fmt: skip
    if place.figure == "rect_editing":
        return point | change_of_success(runs, whole_runs, place, value)
    return point | change_of_ability(runs, place, value) if place.key.startswith("ability/") else point


def _mean(runs: Sequence[Run], key: str, place: Place) -> float:
    """Returns the mean over the runs' rows there, NaN where one does not hold `key`."""
    rows = [run.row(place.n_edits) or {} for run in runs]
    return sum(float(row.get(key, math.nan)) for row in rows) / len(rows)


def _results(run: Run) -> str:
    """Returns the run's results file, in its directory; older versions had one alone, without a digest in its name."""
    return f"{run.name}/results{f'-{run.evaluation}' if run.evaluation else ''}.jsonl"


def _refuse_unlike(runs: Sequence[Run], but: set[str]) -> None:
    for run in runs[1:]:
        names = [name for name in differences(runs[0], run) if name not in but]
        if names:
            raise BadInput(f"{runs[0].name} and {run.name} would be averaged in the study, but they differ in "
                           f"{', '.join(names)}; give one of them")  # fmt: skip
