"""Tests what is said of a published effect: seen, not seen, the opposite, or not to be told; and what is not run."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from afteredit.analysis.read.run_folders import read
from afteredit.analysis.study.missing import not_run, not_run_in_words
from afteredit.analysis.study.points import points
from afteredit.analysis.study.published import FIGURES, published
from afteredit.analysis.study.verdicts import verdict, verdicts
from afteredit.tests.analysis.study.study_runs import moved, only, rome, single, theirs

NAN = math.nan
GPT2 = {"figure": "sequential", "model": "gpt2-xl", "method": "rome_published"}


@pytest.mark.parametrize(
    ("published", "change", "low", "high", "word"),
    [
        (-0.30, -0.20, -0.30, -0.10, "seen: same direction"),
        (-0.30, 0.20, 0.10, 0.30, "the opposite"),
        (-0.30, -0.20, -0.45, 0.05, "cannot be told"),  # the interval holds none and theirs
        (-0.30, -0.20, -0.30, 0.05, "cannot be told"),
        (-0.30, -0.10, -0.25, 0.05, "not seen: no change beyond chance"),
        (0.30, -0.10, -0.25, 0.05, "not seen: no change beyond chance"),
        (-0.04, -0.20, -0.30, -0.10, "an effect here only"),
        (-0.04, 0.00, -0.08, 0.08, "seen: no effect"),
        (-0.04, 0.00, -0.10, 0.10, "seen: no effect"),  # the margin itself
        (-0.04, 0.00, -0.20, 0.20, "cannot be told"),
        (-0.04, -0.02, -0.12, 0.08, "cannot be told"),
        (-0.04, 0.02, -0.08, 0.12, "cannot be told"),
        (-0.04, -0.02, -0.04, -0.01, "seen: no effect"),  # a change, but a smaller one than is called an effect
        (0.00, 0.00, -math.inf, math.inf, "cannot be told"),  # one example tells nothing
        (0.57 - 0.52, 0.00, 0.00, 0.00, "not seen: no change beyond chance"),  # .05 is the least effect
        (-0.30, -0.20, NAN, NAN, "seen: same direction"),
        (-0.30, 0.20, NAN, NAN, "the opposite"),
        (-0.30, -0.04, NAN, NAN, "not seen: no change beyond chance"),
        (-0.04, -0.04, NAN, NAN, "seen: no effect"),
        (-0.04, -0.06, NAN, NAN, "an effect here only"),
    ],
)
def test_the_words_of_a_verdict(published, change, low, high, word):
    assert verdict(published, change, low, high) == word


def test_the_verdict_is_about_the_last_x_that_both_have(tmp_path):
    rome(tmp_path)
    found = verdicts(points(read([tmp_path])), published())
    beside_gpt2 = only(found, figure="sequential", quantity="sentiment", scoring="paper", published_model="gpt2-xl")
    change = theirs(20, quantity="sentiment", **GPT2) - 0.557
    assert beside_gpt2["x"] == 20 and beside_gpt2["verdict"] == "seen: same direction"
    assert beside_gpt2["published_change"] == pytest.approx(change)
    assert beside_gpt2["distance"] == pytest.approx(-0.5 - change)
    assert list(beside_gpt2[["unparseable_before", "unparseable"]]) == [0.25, 0.25]
    assert list(beside_gpt2[["orders", "orders_low", "orders_high"]]) == pytest.approx([1, -0.5, -0.5])
    ner = only(found, figure="sequential", quantity="ner", scoring="paper", published_model="gpt2-xl")
    assert ner["verdict"] == "not seen: no change beyond chance"
    assert not (found["published_model"] == "llama-7b").any()  # looked at after 2, 4, … 10 edits: no x in common


def test_an_ability_that_is_not_measurable_gets_no_verdict(tmp_path):
    rome(tmp_path, measurable=("paper_ner",))
    found = verdicts(points(read([tmp_path])), published())
    assert set(found[found["quantity"] == "sentiment"]["verdict"]) == {"not measurable"}


def test_file_order_is_compared_and_all_orders_give_the_range(tmp_path):
    rome(tmp_path, seed=1, last=0.5, order="shuffled")
    rome(tmp_path, seed=2, last=0.0, order="shuffled")
    rome(tmp_path, seed=0, last=0.2, order="file")
    found = verdicts(points(read([tmp_path])), published())
    for figure in ("sequential", "rect_general"):  # where ROME alone stands beside RECT's curves
        row = only(found, figure=figure, quantity="sentiment", scoring="paper")
        assert row["order"] == "file" and row["change"] == pytest.approx(-0.4)
        assert list(row[["orders", "orders_low", "orders_high"]]) == pytest.approx([3, -0.6, -0.1])


def test_without_file_order_the_lowest_seed_takes_its_place(tmp_path):
    rome(tmp_path, seed=10, last=0.5, order="shuffled")
    rome(tmp_path, seed=2, last=0.3, order="shuffled")
    found = verdicts(points(read([tmp_path])), published())
    row = only(found, figure="sequential", quantity="sentiment", scoring="paper")
    assert row["order"] == "shuffled 2" and row["change"] == pytest.approx(-0.3)


def test_editing_success_is_judged_against_nothing_left_out_on_both_sides(tmp_path):
    def success(n: int) -> dict[str, list[float]]:
        return dict.fromkeys(("reliability", "generalisation", "locality"), [1.0] * n + [0.0] * (20 - n))

    for constraint, n in {"none": 16, "rect_0.8": 16, "rect_0.4": 4, "random_0.4": 0, "pca_0.4": 16,
                          "pca_published_0.4": 0}.items():  # fmt: skip
        single(tmp_path, constraint, success(n))
    found = verdicts(points(read([tmp_path])), published())
    found = found[(found["quantity"] == "reliability") & (found["published_model"] == "gpt2-xl")]
    assert dict(zip(found["constraint"], found["verdict"], strict=True)) == {
        "rect_0.8": "seen: no effect", "rect_0.4": "an effect here only", "random_0.4": "seen: same direction",
        "pca_0.4": "not seen: no change beyond chance", "pca_published_0.4": "seen: same direction",
    }  # fmt: skip
    panel = {"figure": "rect_editing", "model": "gpt2-xl", "method": "rome_published", "quantity": "reliability"}
    change = theirs(1, constraint="pca_0.4", **panel) - theirs(1, constraint="none", **panel)
    for constraint in ("pca_0.4", "pca_published_0.4"):  # both stand beside the published PCA
        assert only(found, constraint=constraint)["published_change"] == pytest.approx(change)


@pytest.mark.parametrize(
    ("distances", "word"),
    [({1: 10.0, 5: 20.0, 15: 30.0}, "seen: both grow"), ({1: 10.0, 5: 20.0, 15: 15.0}, "not seen: no steady growth"),
     ({5: 20.0}, "one point only")],
)  # fmt: skip
def test_how_far_w_moved_is_judged_by_its_growth(tmp_path, distances, word):
    moved(tmp_path, distances)
    row = only(verdicts(points(read([tmp_path])), published()))
    assert (row["figure"], row["quantity"], row["verdict"]) == ("change_statistics", "manhattan", word)
    last = max(distances)
    table = theirs(figure="change_statistics", quantity="manhattan")
    assert row["x"] == last and row["distance"] == pytest.approx(distances[last] - table[last])


def test_what_no_run_shows_is_marked(tmp_path):
    rome(tmp_path)
    ours = points(read([tmp_path]))
    missing = not_run(ours, published(), "tiny", "paper")
    rome_x = missing[(missing["figure"] == "sequential") & (missing["method"] == "rome_published")]
    assert set(rome_x[rome_x["quantity"] == "ner"]["x"]) == {2, 4, 6, 8, 10, 15}  # run: 5 and 20
    assert set(missing[missing["method"] == "kn"]["x"]) == {1, 2, 3, 4}
    table = published()
    here = table[(table["figure"] == "sequential") & (table["method"] == "rome_published")]
    two = here[here["quantity"].isin(["ner", "sentiment"])]
    assert not_run_in_words(ours, two, "tiny", ["paper"]) == [
        "not run: rome_published at 2, 4, 6, 8, 10, 15 (ner, sentiment)"
    ]
    assert not_run_in_words(ours, two, "tiny", ["clean", "paper"]) == [
        "not run (clean): rome_published at 2, 4, 6, 8, 10, 15 (ner, sentiment); rome_published at 5, 20 (ner)",
        "not run (paper): rome_published at 2, 4, 6, 8, 10, 15 (ner, sentiment)",
    ]
    memit = table[(table["figure"] == "batch") & (table["method"] == "memit")]
    assert not_run_in_words(ours, memit, "tiny", ["paper"]) == ["not run: memit at 1, 5, 10, 100, 1,000, 2,000, 3,000"]
    assert not not_run_in_words(ours, two[two["x"] == 20], "tiny", ["paper"])


def test_every_published_value_has_a_figure_a_panel_and_a_source():
    table = published()
    for name, figure in FIGURES.items():
        assert set(table[table["figure"] == name]["quantity"]) == set(figure.quantities)
    assert set(table["figure"]) == set(FIGURES) and table["value"].notna().all()
    assert not table.duplicated(["figure", "model", "method", "constraint", "batch_size", "x", "quantity"]).any()
    sources = table.groupby("figure")["source"].agg(lambda names: set(names)).to_dict()
    assert sources == {
        "sequential": {"result_sequential_editing.png"}, "batch": {"result_batch_editing.png"},
        "batch_sequential": {f"result_batch_sequential_editing_{i}.png" for i in (1, 2)},
        "rect_editing": {"RECT_editing.png"}, "rect_general": {"RECT_general.png"},
        "change_statistics": {"analysis_statistics.png"},
    }  # fmt: skip
    assert isinstance(table, pd.DataFrame) and len(table) == 780
