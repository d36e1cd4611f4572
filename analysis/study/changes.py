"""Computes the change of a point, with its 95 % interval, and the band that is drawn around its value.

A change is since the unedited model.  In the figure on editing success there is none to compare with: a change there is
against the same edits with nothing left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from afteredit.analysis.numbers.paired_examples import paired
from afteredit.analysis.numbers.single_edits import IMMEDIATE
from afteredit.analysis.numbers.statistics import change_interval
from afteredit.analysis.read.run import Run
from afteredit.analysis.study.places import Place
from afteredit.evaluate.intervals import bootstrap

UNKNOWN = (math.nan, math.nan)


def change_of_ability(runs: Sequence[Run], place: Place, value: float) -> dict[str, Any]:
    """Returns the change since the unedited model; its interval is over examples, each compared with itself."""
    ability = place.key.removeprefix("ability/")
    base = float(np.mean([run.rows[0][place.key] for run in runs]))
    pairs = paired(runs, ability, place.n_edits) if place.x else None
    low, high = change_interval(*pairs) if pairs else UNKNOWN
    measurable = all(ability in run.rows[0].get("measurable", [ability]) for run in runs)
    return {"change": value - base, "low": low, "high": high, "band_low": base + low, "band_high": base + high,
            "measurable": measurable}  # fmt: skip


def change_of_success(runs: Sequence[Run], whole_runs: Sequence[Run], place: Place, value: float) -> dict[str, Any]:
    """Returns the change against `whole_runs`, which leave nothing out of the same edits; NaN where there are none.

    Its interval is over facts, each compared with itself; facts that only one side edited are left out.
    """
    scores = _by_fact(runs, place)
    band_low, band_high = _interval(scores)
    point = {"change": math.nan, "low": math.nan, "high": math.nan, "band_low": band_low, "band_high": band_high}
    if not whole_runs:
        return point
    differences = (scores - _by_fact(whole_runs, place)).dropna()
    if len(differences):
        low, high = _interval(differences)
        return point | {"change": float(differences.mean()), "low": low, "high": high}
    return point | {"change": value - float(np.mean([run.rows[-1][place.key] for run in whole_runs]))}


def _by_fact(runs: Sequence[Run], place: Place) -> pd.Series:
    """Returns each fact's success, the mean over its prompts and over the runs; empty where examples are not kept."""
    name, parts = place.key.removeprefix(IMMEDIATE), []
    for samples in (run.samples for run in runs):
        if "kind" in samples and "request" in samples:
            chosen = samples[(samples["kind"] == "immediate") & (samples["name"] == name)]
            parts.append(chosen.groupby("request")["score"].mean())
    return pd.concat(parts, axis=1).mean(axis=1) if parts else pd.Series(dtype=float)


def _interval(scores: pd.Series) -> tuple[float, float]:
    values = scores.to_numpy(dtype=float)
    if not len(values):
        return UNKNOWN
    return bootstrap([len(values)], lambda index, axis=-1: values[index].mean(axis=axis))
