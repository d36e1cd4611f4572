"""Tests which curve of Gu et al.'s figures a number of a run belongs to, its change, and the rows that it names."""

from __future__ import annotations

import json
import math

import pytest

from afteredit.analysis.read.run_folders import read
from afteredit.analysis.study.places import constraint_name
from afteredit.analysis.study.points import points
from afteredit.analysis.study.published import published
from afteredit.store.errors import BadInput
from afteredit.tests.analysis.conftest import checked, write_run
from afteredit.tests.analysis.study.study_runs import TASKS, only, right, rome, single


def test_a_point_is_the_mean_over_runs_and_its_change_is_since_the_unedited_model(tmp_path):
    rome(tmp_path, seed=0, last=0.1)
    rome(tmp_path, seed=1, last=0.3)
    found = points(read([tmp_path]))
    point = only(found, figure="sequential", quantity="sentiment", scoring="paper", x=20)
    assert (point["method"], point["constraint"], point["batch_size"], point["n_runs"]) == (
        "rome_published",
        "none",
        1,
        2,
    )
    assert point["value"] == pytest.approx(0.2) and point["change"] == pytest.approx(-0.4)
    assert point["low"] < -0.4 < point["high"] < 0
    clean = only(found, figure="sequential", quantity="sentiment", scoring="clean", x=20)
    assert clean["value"] == pytest.approx(0.5) and clean["change"] == pytest.approx(-0.3)


@pytest.mark.parametrize(
    ("target", "keep", "name"),
    [("constraint.Unconstrained", None, "none"), ("constraints.rect.Rect", 0.8, "rect_0.8"),
     ("constraints.random_entries.RandomEntries", 0.4, "random_0.4"), ("constraints.pca.Pca", 0.4, "pca_0.4"),
     ("constraints.pca_published.PcaPublished", 0.4, "pca_published_0.4")],
)  # fmt: skip
def test_a_constraint_is_called_as_in_the_published_table(target, keep, name):
    config = {"constraint": {"_target_": f"afteredit.edit.{target}"} | ({"keep": keep} if keep else {})}
    assert constraint_name(config) == name
    assert name == "pca_published_0.4" or name in set(published()["constraint"])


def test_each_setting_has_its_figure(tmp_path):
    scores = {n: {"paper_sentiment": right(0.6)} for n in (0, 30, 60)}
    batches = dict(measurable=("paper_sentiment",), tasks=TASKS)
    write_run(tmp_path, "memit", 1, scores, config={"batch_size": 3}, **batches)
    write_run(
        tmp_path, "memit", 2, {n: scores[0] for n in (0, 10)}, config={"batch_size": 10, "setting": "single"}, **batches
    )
    write_run(
        tmp_path, "memit", 3, {n: scores[n] for n in (0, 30)}, config={"batch_size": 30, "setting": "single"}, **batches
    )
    found = points(read([tmp_path]))
    assert set(found[found["figure"] == "batch_sequential"]["x"]) == {0, 10, 20}  # rounds
    batch = found[found["figure"] == "batch"]
    assert list(zip(batch["x"], batch["n_runs"], strict=True)) == [(0, 2), (10, 1), (30, 1)]  # facts in the batch
    assert set(found["figure"]) == {"batch", "batch_sequential"}


@pytest.mark.parametrize(("n_edits", "figures"), [(1, {"batch"}), (20, {"batch", "rect_editing"})])
def test_single_edits_are_a_figure_where_there_are_several(tmp_path, n_edits, figures):
    scores = {n: {"paper_sentiment": right(0.6)} for n in (0, n_edits)}
    config = {"batch_size": 1, "setting": "single"}
    folder = write_run(tmp_path, "memit", 1, scores, config=config, measurable=("paper_sentiment",), tasks=TASKS)
    first, last = (json.loads(line) for line in (folder / "results-aaaaaaaa.jsonl").read_text().splitlines())
    success = {f"editing/immediate/forced/{probe}": 0.75 for probe in ("efficacy", "paraphrase", "neighbourhood")}
    rows = first, {**last, **success, "editing/immediate/n_edits": n_edits}
    (folder / "results-aaaaaaaa.jsonl").write_text("".join(map(checked, rows)))
    found = points(read([tmp_path]))
    assert set(found["figure"]) == figures
    assert list(found[found["figure"] == "rect_editing"]["value"]) == [0.75] * 3 * (n_edits > 1)


def test_runs_of_fewer_rows_are_left_out_and_named(tmp_path, caplog):
    rome(tmp_path, seed=0, last=0.1, limit=64)
    rome(tmp_path, seed=1, last=0.5, limit=8)
    found = points(read([tmp_path]))
    assert only(found, figure="sequential", quantity="sentiment", scoring="paper", x=20)["n_runs"] == 1
    assert "limit=8" in caplog.text and "64 rows" in caplog.text


def test_a_run_measured_twice_counts_once(tmp_path):
    rome(tmp_path)
    rome(tmp_path, digest="bbbbbbbb")
    assert only(points(read([tmp_path])), figure="sequential", quantity="ner", x=20)["n_runs"] == 1


OTHERS = {"model": {"environment": {"model": {"name": "other"}}}, "facts": {"environment": {"facts": "0708" * 16}},
          "edits": {"edits": {"name": "zsre"}}, "data": {"data": "/rows"},
          "method.layer": {"method": {"_target_": "afteredit.edit.rome_published.X", "layer": 9}}}  # fmt: skip


@pytest.mark.parametrize("what", OTHERS)
def test_unlike_runs_are_not_averaged(tmp_path, what):
    one = rome(tmp_path, environment={"facts": "fac7" * 16, "model": {"name": "tiny"}})
    other = rome(tmp_path, seed=1, **OTHERS[what])
    with pytest.raises(BadInput, match=f"{one.name} and {other.name} would be averaged .* they differ in {what};"):
        points(read([tmp_path]))


def test_a_round_that_is_not_whole_has_no_place(tmp_path):
    scores = {n: {"paper_ner": right(0.5)} for n in (0, 30, 45, 60, 70)}
    write_run(tmp_path, "memit", 1, scores, config={"batch_size": 30}, measurable=("paper_ner",), tasks=TASKS)
    assert list(points(read([tmp_path]))["x"]) == [0, 1, 2]


def test_other_seeds_and_older_versions_are_averaged_but_every_order_of_the_facts_is_a_curve(tmp_path):
    rome(tmp_path, last=0.1, order="file")
    rome(tmp_path, seed=1, last=0.2)  # an older version, which had no other order
    rome(tmp_path, seed=2, last=0.5, order="shuffled")
    rome(tmp_path, seed=3, last=0.4, order="shuffled")
    found = points(read([tmp_path]))
    here = found[(found["figure"] == "sequential") & (found["quantity"] == "sentiment") & (found["scoring"] == "paper")]
    last = here[here["x"] == 20].set_index("order")
    assert last["value"].to_dict() == pytest.approx({"file": 0.15, "shuffled 2": 0.5, "shuffled 3": 0.4})
    assert last["change"].to_dict() == pytest.approx({"file": -0.45, "shuffled 2": -0.1, "shuffled 3": -0.2})
    assert last["n_runs"].to_dict() == {"file": 2, "shuffled 2": 1, "shuffled 3": 1}


def test_a_point_names_the_file_and_the_row_of_each_run_and_how_many_answers_were_unreadable(tmp_path):
    rome(tmp_path, seed=1)
    rome(tmp_path, seed=0, digest="bbbbbbbb")
    backwards = read([tmp_path])[::-1]
    point = only(points(backwards), figure="sequential", quantity="sentiment", scoring="clean", x=5)
    assert point["results"] == ("rome_published-tiny-00000000/results-bbbbbbbb.jsonl "
                                "rome_published-tiny-00000001/results-aaaaaaaa.jsonl")  # fmt: skip
    assert (point["n_edits"], point["key"]) == ("5 5", "ability/sentiment")
    assert point["unparseable"] == 0.25


def test_the_row_of_a_round_is_that_of_its_last_edit(tmp_path):
    scores = {n: {"paper_ner": right(0.5)} for n in (0, 30, 60)}
    write_run(tmp_path, "memit", 1, scores, config={"batch_size": 30}, measurable=("paper_ner",), tasks=TASKS)
    found = points(read([tmp_path])).set_index("x")["n_edits"]
    assert found.to_dict() == {0: "0", 1: "30", 2: "60"}


def test_a_mean_over_edited_models_names_the_row_of_each(tmp_path):
    scores = {0: {"paper_ner": right(0.5)}, 1: {"paper_ner": right(0.4)}, 2: {"paper_ner": right(0.2)}}
    config = {"batch_size": 1, "setting": "single"}
    write_run(tmp_path, "memit", 1, scores, config=config, measurable=("paper_ner",), tasks=TASKS)
    point = only(points(read([tmp_path])), figure="batch", x=1)
    assert point["value"] == pytest.approx(0.3) and point["n_edits"] == "1,2"


WHOLE = {"reliability": [1.0] * 13 + [0.0] * 7, "generalisation": [1.0] * 20, "locality": [0.5] * 20}


def test_a_change_of_editing_success_is_against_nothing_left_out_fact_by_fact(tmp_path):
    single(tmp_path, "none", WHOLE)
    single(tmp_path, "random_0.4", {**WHOLE, "reliability": [0.0] * 20})
    found = points(read([tmp_path]))
    change = only(found, constraint="random_0.4", quantity="reliability")[["change", "low", "high"]]
    # 13 of 20 differences are −1: the 2.5 % and 97.5 % quantiles of a binomial (20, .65) are 9 and 17
    assert list(change) == pytest.approx([-13 / 20, -17 / 20, -9 / 20])
    whole = only(found, constraint="none", quantity="reliability")
    assert whole["value"] == 0.65 and math.isnan(whole["change"])
    assert [whole["band_low"], whole["band_high"]] == pytest.approx([0.45, 0.85])


def test_the_same_facts_are_compared_in_whatever_order_they_stand(tmp_path):
    facts = [f"f{i}" for i in range(20)]
    single(tmp_path, "none", WHOLE, facts=facts)
    backwards = {name: scores[::-1] for name, scores in WHOLE.items()}
    single(tmp_path, "rect_0.8", backwards, facts=facts[::-1])
    single(tmp_path, "rect_0.4", WHOLE, facts=["x0", *facts[1:]])  # x0 was not edited with nothing left out
    found = points(read([tmp_path]))
    for constraint in ("rect_0.8", "rect_0.4"):
        point = only(found, constraint=constraint, quantity="reliability")
        assert list(point[["change", "low", "high"]]) == [0.0, 0.0, 0.0]


def test_without_examples_there_is_a_change_but_no_interval(tmp_path):
    single(tmp_path, "none", WHOLE)
    single(tmp_path, "rect_0.4", {**WHOLE, "reliability": [1.0] * 10 + [0.0] * 10}, examples=False)
    point = only(points(read([tmp_path])), constraint="rect_0.4", quantity="reliability")
    assert point["change"] == pytest.approx(-0.15) and point[["low", "high"]].isna().all()
