"""Everything that was measured, as tables."""

from __future__ import annotations

import math

from afteredit.analysis.numbers.comparison import comparisons
from afteredit.analysis.numbers.flat_tables import edits_table, metrics_table, samples_table
from afteredit.analysis.read.run_folders import read
from afteredit.tests.analysis.conftest import checked

START = {"nli": [1, 1, 1, 1, 0], "reasoning": [1, 0, 0, 0, 0]}
WORSE = {"nli": [1, 1, 1, 0, 0], "reasoning": [0, 0, 0, 0, 0]}


def test_every_number_and_every_example_is_in_the_tables(tmp_path, made_run):
    made_run(tmp_path, "rome", 3, {0: START, 5: WORSE})
    (x,) = comparisons(read([tmp_path]))
    metrics, samples = metrics_table(x.runs), samples_table(x.runs)
    (value,) = metrics[(metrics["n_edits"] == 5) & (metrics["metric"] == "ability/nli")]["value"]
    assert value == 0.6 and set(metrics["seed"]) == {3} and "measurable" not in set(metrics["metric"])
    assert len(samples) == 20 and samples[samples["n_edits"] == 5]["numerator"].sum() == 3


def edit(n_edits: int, *ids: str, immediate: tuple[float, ...] = (), **diagnostics: float) -> dict:
    requests = [{"id": name, "subject": name, "target_new": "Rome"} for name in ids]
    scored = [{"name": "prob/efficacy", "request": ids[0], "probe": i, "score": s} for i, s in enumerate(immediate)]
    return {"n_edits": n_edits, "requests": requests, "diagnostics": diagnostics, "immediate": scored, "edit_s": 2.5}


def test_every_edit_is_in_a_table_with_its_diagnostics_success_and_seconds(tmp_path, made_run):
    folder = made_run(tmp_path, "rome", 3, {0: START, 5: WORSE})
    records = [edit(2, "a", "b", immediate=(1.0, 0.0), nll_after=0.25), edit(3, "c", immediate=(1.0,), steps=7)]
    (folder / "edits.jsonl").write_text("".join(map(checked, records)), encoding="utf-8")
    (x,) = comparisons(read([tmp_path]))
    first, second = edits_table(x.runs).to_dict("records")
    assert (first["method"], first["seed"], first["n_edits"], first["n_new"]) == ("rome", 3, 2, 2)
    assert first["ids"] == "a; b" and first["target_news"] == "Rome; Rome" and first["edit_s"] == 2.5
    assert first["diagnostics/nll_after"] == 0.25 and math.isnan(first["diagnostics/steps"])
    assert first["immediate/prob/efficacy"] == 0.5 and second["immediate/prob/efficacy"] == 1.0
    assert (second["n_edits"], second["n_new"], second["diagnostics/steps"]) == (3, 1, 7.0)
