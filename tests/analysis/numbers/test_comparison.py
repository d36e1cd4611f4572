"""Curves of runs that were measured alike, relative to the unedited model."""

from __future__ import annotations

import json
import math

import pytest

from afteredit.analysis.numbers.comparison import comparisons
from afteredit.analysis.numbers.run_values import common_checkpoints
from afteredit.analysis.read.run_folders import read
from afteredit.tests.analysis.conftest import checked

TASKS = {"nli": {"chance": 0.5}, "reasoning": {"chance": 0.0}}
START = {"nli": [1, 1, 1, 1, 0], "reasoning": [1, 0, 0, 0, 0]}
WORSE = {"nli": [1, 1, 1, 0, 0], "reasoning": [0, 0, 0, 0, 0]}


def test_each_run_is_compared_with_its_own_unedited_model(tmp_path, made_run):
    """Another machine's unedited model may score otherwise: 0.8 → 0.6 and 1 → 0.8 are −0.2 each, 1/3 and 3/5 left."""
    made_run(tmp_path, "rome", 1, {0: START, 5: WORSE})
    made_run(tmp_path, "rome", 2, {0: {**START, "nli": [1] * 5}, 5: START})
    (x,) = comparisons(read([tmp_path]))
    left = [x.share("nli")(run, run.row(5)) for run in x.runs["rome"]]
    assert left == pytest.approx([1 / 3, 3 / 5]) and x.base("nli") == pytest.approx(0.9)
    point = x.curves.query("n_edits == 5 and curve == 'retained'").iloc[0]
    assert point["value"] == pytest.approx(sum(left) / 2) and point["low"] < sum(left) / 2 < point["high"]


def test_the_caption_says_model_edits_rows_and_seeds(tmp_path, made_run):
    for seed in (1, 2):
        made_run(tmp_path, "rome", seed, {0: START, 5: WORSE}, config={"edits": {"name": "zsre", "order": "file"}})
    (x,) = comparisons(read([tmp_path]))
    assert (
        x.caption == "tiny · edits: zsre in file order · setting: sequential · 5 embedded rows per ability · seeds 1, 2"
    )


def test_two_evaluations_of_one_run_are_two_comparisons_each_with_its_own_examples(tmp_path, made_run):
    made_run(tmp_path, "rome", 1, {0: START, 5: WORSE})
    made_run(tmp_path, "rome", 1, {0: START, 5: START, 10: START}, digest="bbbbbbbb")
    first, second = comparisons(read([tmp_path]))
    assert "evaluation aaaaaaaa" in first.title and "evaluation bbbbbbbb" in second.title
    assert [common_checkpoints(list(x.runs.values())[0]) for x in (first, second)] == [[0, 5], [0, 5, 10]]
    changes = [x.curves.query("n_edits == 5 and curve == 'ability/nli'")["value"].item() for x in (first, second)]
    assert changes == pytest.approx([-0.2, 0.0])


def test_curves_are_means_over_runs_where_all_have_a_checkpoint(tmp_path, made_run):
    made_run(tmp_path, "rome", 1, {0: START, 5: WORSE, 10: WORSE})
    made_run(tmp_path, "rome", 2, {0: START, 5: START})
    (x,) = comparisons(read([tmp_path]))
    curve = x.curves.set_index(["curve", "n_edits"])
    assert set(x.curves["n_edits"]) == {0, 5} and set(x.curves["n_runs"]) == {2}
    assert curve.loc[("ability/nli", 5), "value"] == pytest.approx(-0.1)
    assert curve.loc[("ability/nli/gold_nll", 5), "value"] == pytest.approx(0.1)
    assert curve.loc[("retained", 5), "value"] == pytest.approx((1 / 3 + 1) / 2)  # (0.6 - 0.5) / (0.8 - 0.5)
    low, high = curve.loc[("retained", 5), ["low", "high"]]
    assert low < 2 / 3 < high
    assert curve.loc[("retained", 0), ["value", "low", "high"]].tolist() == [1, 1, 1]


def test_without_examples_there_are_curves_and_no_bands(tmp_path, made_run):
    folder = made_run(tmp_path, "rome", 1, {0: START, 5: WORSE})
    for path in (folder / "samples").iterdir():
        path.unlink()
    (x,) = comparisons(read([tmp_path]))
    assert x.curves["value"].notna().all() and x.curves["low"].isna().all()


def test_chance_is_the_results_own_else_the_configs_else_not_known(tmp_path, made_run):
    """A task that lm-eval ships (`harness=[…]`) has its chance in the results only."""
    folder = made_run(tmp_path, "rome", 1, {0: {**START, "arc": [1, 0]}}, tasks={**TASKS, "arc": {}})
    (unknown,) = comparisons(read([folder]))
    assert unknown.chance["nli"] == 0.5 and math.isnan(unknown.chance["arc"])
    path = folder / "results-aaaaaaaa.jsonl"
    row = json.loads(path.read_text())
    path.write_text(checked({**row, "chance": {"arc": 0.25}, "measurable": ["nli", "arc"]}))
    (known,) = comparisons(read([folder]))
    assert known.chance == {"nli": 0.5, "reasoning": 0.0, "arc": 0.25} and known.measurable == ["nli", "arc"]


def test_where_both_scorings_are_asked_retained_is_of_the_clean_tasks(tmp_path, made_run):
    tasks = {name: {"title": name, "chance": 0.0} for name in ("nli", "paper_nli")}
    scores = {0: {name: [1.0] * 8 + [0.0] * 2 for name in tasks},
              5: {"nli": [1.0] * 4 + [0.0] * 6, "paper_nli": [0.0] * 10}}  # fmt: skip
    made_run(tmp_path, "rome", 1, scores, measurable=list(tasks), tasks=tasks)
    (x,) = comparisons(read([tmp_path]))
    assert x.measurable == ["nli", "paper_nli"] and x.in_retained == ["nli"]
    point = x.curves.set_index(["curve", "n_edits"]).loc[("retained", 5)]
    assert point["value"] == 0.5 and 0.1 < point["low"] < 0.5 < point["high"] < 1  # of both: from .12 down


def test_chosen_checkpoints(losses):
    assert losses.chosen_checkpoints([]) == [10, 20] and losses.chosen_checkpoints([20]) == [20]


def test_of_many_checkpoints_the_last_and_others_evenly_before_it(tmp_path, made_run):
    made_run(tmp_path / "long", "rome", 1, {n: START for n in range(0, 100, 10)})
    (only,) = comparisons(read([tmp_path / "long"]))
    assert only.chosen_checkpoints([]) == [30, 60, 90]
