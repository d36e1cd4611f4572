"""Places what runs measured in the figures of Gu et al.: which figure, which curve, which x."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from afteredit.analysis.numbers.method_names import differences, model_name
from afteredit.analysis.numbers.paired_examples import paired
from afteredit.analysis.numbers.single_edits import COVERED, averaged
from afteredit.analysis.numbers.statistics import change_interval
from afteredit.analysis.read.run import Run, at
from afteredit.analysis.study.published import FIGURES, KEY, SUCCESS
from afteredit.evaluate.intervals import bootstrap
from afteredit.evaluate.retention import PAPER
from afteredit.store.errors import BadInput

log = logging.getLogger(__name__)

CONSTRAINTS = {"Unconstrained": "none", "Rect": "rect", "RandomEntries": "random", "Pca": "pca",
               "PcaPublished": "pca_published"}  # fmt: skip
CURVE = ["model", "scoring", *KEY]


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


def points(runs: Sequence[Run]) -> pd.DataFrame:
    """Returns one row per curve and x: CURVE, x, value (the mean over runs), low, high, n_runs, runs.

    `change`, with its 95 % interval over examples from `low` to `high`, is since the unedited model; where editing
    success is shown, `change` is the value itself.  Raises BadInput where runs of one point differ in more than the
    seed and the order of the facts.
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
                rows.append((*curve, place.x, run.name, float(row[place.key]), place, run))
    table = pd.DataFrame(rows, columns=[*CURVE, "x", "name", "value", "place", "run"])
    table = table.drop_duplicates([*CURVE, "x", "name"])  # two evaluations of one run may hold the same number
    found = [_merged(dict(zip([*CURVE, "x"], key, strict=True)), group) for key, group in table.groupby([*CURVE, "x"])]
    return pd.DataFrame(found, columns=[*CURVE, "x", "value", "change", "low", "high", "measurable", "n_runs", "runs"])


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
                yield Place("rect_editing", 1, 1, quantity, "", f"editing/immediate/forced/{probe}", n_edits)
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


def _merged(curve: dict[str, Any], group: pd.DataFrame) -> dict[str, Any]:
    """Returns the point of all runs of one curve at one x."""
    place, runs = group["place"].iloc[0], list(group["run"])
    # the unedited model stands at 0 in the curve of all batch sizes
    _refuse_unlike(runs, {"edits.order", "batch_size"} if place.figure == "batch" and not place.x else {"edits.order"})
    value = group["value"].mean()
    point = {**curve, "value": value, "change": value, "low": math.nan, "high": math.nan, "measurable": True,
             "n_runs": len(runs), "runs": " ".join(sorted(run.name for run in runs))}  # fmt: skip
    if place.figure == "rect_editing":
        scores = np.concatenate([_success(run, place) for run in runs])
        if len(scores):
            point["low"], point["high"] = bootstrap([len(scores)], lambda index, axis=-1: scores[index].mean(axis=axis))
    elif place.key.startswith("ability/"):
        ability = place.key.removeprefix("ability/")
        point["change"] = value - float(np.mean([run.rows[0][place.key] for run in runs]))
        point["measurable"] = all(ability in run.rows[0].get("measurable", [ability]) for run in runs)
        pairs = paired(runs, ability, place.n_edits) if place.x else None
        if pairs:
            point["low"], point["high"] = change_interval(*pairs)
    return point


def _refuse_unlike(runs: Sequence[Run], but: set[str]) -> None:
    for run in runs[1:]:
        names = [name for name in differences(runs[0], run) if name not in but]
        if names:
            raise BadInput(f"{runs[0].name} and {run.name} would be averaged in the study, but they differ in "
                           f"{', '.join(names)}; give one of them")  # fmt: skip


def _success(run: Run, place: Place) -> np.ndarray:
    """Returns each edit's own success, the mean over its prompts; empty where examples are not kept."""
    samples, name = run.samples, place.key.removeprefix("editing/immediate/")
    if "kind" not in samples or "request" not in samples:
        return np.empty(0)
    chosen = samples[(samples["kind"] == "immediate") & (samples["name"] == name)]
    return chosen.groupby("request")["score"].mean().to_numpy(dtype=float)
