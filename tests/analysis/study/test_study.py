"""Tests the study of Gu et al.'s figures: which curve a number belongs to, what is said of it, what is not run."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from afteredit.analysis.__main__ import main
from afteredit.analysis.read.run_folders import read
from afteredit.analysis.study.points import constraint_name, points
from afteredit.analysis.study.published import FIGURES, published
from afteredit.analysis.study.verdicts import not_run, verdicts
from afteredit.store.errors import BadInput
from afteredit.tests.analysis.conftest import checked, write_run

N = 40
TASKS = {name: {"title": name, "chance": 0.0} for name in ("paper_sentiment", "sentiment", "paper_ner")}


def right(share: float) -> list[float]:
    """The scores of N examples of which this share is right."""
    return [1.0] * round(share * N) + [0.0] * (N - round(share * N))


def rome(runs, seed=0, last=0.1, measurable=tuple(TASKS), environment=None, digest="aaaaaaaa", **config):
    scores = {0: {"paper_sentiment": right(0.6), "sentiment": right(0.8), "paper_ner": right(0.5)},
              5: {"paper_sentiment": right(0.5), "sentiment": right(0.7), "paper_ner": right(0.5)},
              20: {"paper_sentiment": right(last), "sentiment": right(0.5), "paper_ner": right(0.5)}}  # fmt: skip
    return write_run(runs, "rome_published", seed, scores, measurable=measurable, tasks=TASKS, config=config,
                     environment=environment, digest=digest)  # fmt: skip


def only(table: pd.DataFrame, **values) -> pd.Series:
    for key, value in values.items():
        table = table[table[key] == value]
    assert len(table) == 1, table
    return table.iloc[0]


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


def test_the_verdict_is_about_the_last_x_that_both_have(tmp_path):
    rome(tmp_path)
    found = verdicts(points(read([tmp_path])), published())
    theirs = published().set_index(["figure", "model", "method", "quantity", "x"])["value"]
    beside_gpt2 = only(found, figure="sequential", quantity="sentiment", scoring="paper", published_model="gpt2-xl")
    change = theirs["sequential", "gpt2-xl", "rome_published", "sentiment", 20] - 0.557
    assert beside_gpt2["x"] == 20 and beside_gpt2["verdict"] == "seen: same direction"
    assert beside_gpt2["published_change"] == pytest.approx(change)
    assert beside_gpt2["distance"] == pytest.approx(-0.5 - change)
    ner = only(found, figure="sequential", quantity="ner", scoring="paper", published_model="gpt2-xl")
    assert ner["verdict"] == "not seen: no change beyond chance"
    assert not (found["published_model"] == "llama-7b").any()  # looked at after 2, 4, … 10 edits: no x in common


def test_an_ability_that_is_not_measurable_gets_no_verdict(tmp_path):
    rome(tmp_path, measurable=("paper_ner",))
    found = verdicts(points(read([tmp_path])), published())
    assert set(found[found["quantity"] == "sentiment"]["verdict"]) == {"not measurable"}


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
    assert set(only_x(found, "batch_sequential")) == {0, 10, 20}  # rounds
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


def only_x(table: pd.DataFrame, figure: str) -> pd.Series:
    return table[table["figure"] == figure]["x"]


def test_what_no_run_shows_is_marked(tmp_path):
    rome(tmp_path)
    missing = not_run(points(read([tmp_path])), published(), "tiny", "paper")
    rome_x = missing[(missing["figure"] == "sequential") & (missing["method"] == "rome_published")]
    assert set(rome_x[rome_x["quantity"] == "ner"]["x"]) == {2, 4, 6, 8, 10, 15}  # run: 5 and 20
    assert set(missing[missing["method"] == "kn"]["x"]) == {1, 2, 3, 4}


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


def test_other_seeds_orders_and_older_versions_are_averaged(tmp_path):
    rome(tmp_path, edits={"name": "facts", "order": "file"})
    rome(tmp_path, seed=1, edits={"name": "facts", "order": "shuffled"}, environment={"model": {"name": "tiny"}})
    assert only(points(read([tmp_path])), figure="sequential", quantity="ner", x=20)["n_runs"] == 2


def test_a_round_that_is_not_whole_has_no_place(tmp_path):
    scores = {n: {"paper_ner": right(0.5)} for n in (0, 30, 45, 60, 70)}
    write_run(tmp_path, "memit", 1, scores, config={"batch_size": 30}, measurable=("paper_ner",), tasks=TASKS)
    assert list(points(read([tmp_path]))["x"]) == [0, 1, 2]


def test_the_command_writes_page_pictures_and_numbers(tmp_path, capsys):
    rome(tmp_path / "runs", environment={"evaluations": {}, "weights": "Q4_K, dequantised"})
    assert main(["study", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "study.md").read_text(encoding="utf-8")
    assert str(tmp_path / "out" / "study.md") in capsys.readouterr().out.replace("\n", "")
    picture = "tiny-sequential-rome.png"
    assert f"({picture})" in page and (tmp_path / "out" / picture).stat().st_size > 20_000
    assert (
        "\n## tiny (Q4_K, dequantised)\n" in page and "kn: **not run**" in page and "| seen: same direction |" in page
    )
    numbers = pd.read_csv(tmp_path / "out" / "points.csv")
    assert only(numbers, figure="sequential", quantity="sentiment", scoring="paper", x=20)["value"] == pytest.approx(
        0.1
    )


def test_runs_that_belong_to_no_figure_are_refused_with_what_would(tmp_path, capsys):
    write_run(tmp_path / "runs", "rome", 0, {0: {"nli": right(0.75)}}, config={"constraint": {
        "_target_": "afteredit.edit.constraints.norm_cap.NormCap", "growth": 0.1}})  # fmt: skip
    assert main(["study", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 2
    assert "experiment=gu2024/sequential_rome" in capsys.readouterr().err.replace("\n", " ")


def test_every_published_value_has_a_figure_and_a_panel():
    table = published()
    for name, figure in FIGURES.items():
        assert set(table[table["figure"] == name]["quantity"]) == set(figure.quantities)
    assert set(table["figure"]) == set(FIGURES) and table["value"].notna().all()
    assert not table.duplicated(["figure", "model", "method", "constraint", "batch_size", "x", "quantity"]).any()
