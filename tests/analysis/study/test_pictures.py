"""Tests what the axes of the study's pictures hold: our points, the published values, and what is not run."""

from __future__ import annotations

import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.collections import PolyCollection

from afteredit.analysis.read.run_folders import read
from afteredit.analysis.study.pictures import draw
from afteredit.analysis.study.points import points
from afteredit.analysis.study.published import published
from afteredit.tests.analysis.study.study_runs import rome, single, theirs

MARKS = {"gpt2-xl": "x", "llama-7b": "+"}


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def picture(figure: str, runs, method: str = "rome_published", missing=()):
    ours, table = points(read([runs])), published()
    ours = ours[ours["figure"] == figure]
    return draw(figure, "tiny", ours, table[(table["figure"] == figure) & (table["method"] == method)], missing)


def panel(drawn, title: str):
    return next(axis for axis in drawn.axes if axis.get_title().startswith(title))


def lines(axis, marker: str) -> list[dict[float, float]]:
    return [dict(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in axis.lines
            if line.get_marker() == marker]  # fmt: skip


def texts(axis) -> list[str]:
    return [text.get_text() for text in axis.texts]


def test_a_panel_holds_our_curve_and_the_published_values_of_both_models(tmp_path):
    rome(tmp_path)
    drawn = picture("sequential", tmp_path)
    for title, quantity in (("sentiment", "sentiment"), ("named entities", "ner"), ("reasoning", "reasoning")):
        for model, mark in MARKS.items():
            wanted = theirs(figure="sequential", model=model, method="rome_published", quantity=quantity)
            assert lines(panel(drawn, title), mark) == [pytest.approx(wanted)]
    assert {0: 0.6, 5: 0.5, 20: 0.1} in lines(panel(drawn, "sentiment"), "o")
    assert texts(panel(drawn, "reasoning")) == ["not run"] and not texts(panel(drawn, "sentiment"))
    assert "result_sequential_editing.png" in drawn.get_suptitle()


def test_a_grey_line_under_the_panels_says_what_is_not_run(tmp_path):
    rome(tmp_path)
    title = picture("sequential", tmp_path, missing=["not run: memit at 1,000, 2,000"]).legends[0].get_title()
    assert title.get_text() == "not run: memit at 1,000, 2,000" and title.get_color() == "0.45"
    assert not picture("sequential", tmp_path).legends[0].get_title().get_text()
    assert "no values in Gu et al." in picture("sequential", tmp_path, method="none").get_suptitle()


def test_file_order_is_thick_with_a_band_and_other_orders_are_thin_in_its_colour(tmp_path):
    rome(tmp_path, seed=0, last=0.2, order="file")
    rome(tmp_path, seed=1, last=0.5, order="shuffled")
    axis = panel(picture("sequential", tmp_path), "named")  # scored by the paper's rule alone
    thin, thick = (line for line in axis.lines if line.get_marker() in ("None", "o"))
    assert thin.get_linewidth() < 1 < thick.get_linewidth() and thin.get_color() == thick.get_color()
    axis = panel(picture("sequential", tmp_path), "sentiment")
    last = {(line.get_linestyle(), line.get_linewidth() > 1): line.get_ydata()[-1] for line in axis.lines
            if line.get_marker() in ("None", "o")}  # fmt: skip
    assert last == pytest.approx({("-", True): 0.2, ("-", False): 0.5, ("--", True): 0.5, ("--", False): 0.5})
    assert len([band for band in axis.collections if isinstance(band, PolyCollection)]) == 2  # one for each scoring
    labels = [text.get_text() for text in axis.figure.legends[0].get_texts()]
    assert "other orders of the edit set" in labels


def test_pca_as_shipped_has_the_colour_of_the_published_pca(tmp_path):
    for name in ("Pca", "PcaPublished"):
        constraint = {"_target_": f"afteredit.edit.constraints.x.{name}", "keep": 0.4}
        rome(tmp_path, seed=len(name), constraint=constraint)
    axis = panel(picture("rect_general", tmp_path), "sentiment")
    colours = {line.get_color() for line in axis.lines if line.get_marker() not in MARKS.values()}
    values = theirs(figure="rect_general", quantity="sentiment", constraint="pca_0.4")
    (published_pca,) = [line for line in axis.lines if line.get_marker() == "x" and line.get_color() in colours]
    assert len(colours) == 1 and list(published_pca.get_ydata()) == pytest.approx(list(values.values()))


def test_bars_are_grouped_by_measure_beside_the_published_values(tmp_path):
    success = {"reliability": [1.0] * 5 + [0.0] * 15, "generalisation": [1.0] * 20, "locality": [1.0] * 10 + [0.0] * 10}
    single(tmp_path, "none", success)
    single(tmp_path, "pca_published_0.4", {**success, "reliability": [0.0] * 20})
    (axis,) = picture("rect_editing", tmp_path).axes
    assert [label.get_text() for label in axis.get_xticklabels()] == ["reliability", "generalisation", "locality"]
    order = ["none", "rect_0.8", "rect_0.6", "rect_0.4", "rect_0.2", "random_0.4", "pca_0.4", "pca_published_0.4"]
    step = axis.patches[1].get_center()[0] - axis.patches[0].get_center()[0]
    place = {name: axis.patches[0].get_center()[0] + step / 7 * i for i, name in enumerate(order)}
    assert [bar.get_height() for bar in axis.patches] == [0.25, 0.0, 1.0, 1.0, 0.5, 0.5]
    for model, mark in MARKS.items():
        marks = {round(line.get_xdata()[0], 6): line.get_ydata()[0] for line in axis.lines if line.get_marker() == mark}
        assert len(marks) == 3 * len(order)
        for name, x in place.items():
            wanted = theirs(1, figure="rect_editing", model=model, method="rome_published", quantity="reliability",
                            constraint="pca_0.4" if name.startswith("pca") else name)  # fmt: skip
            assert marks[round(x, 6)] == wanted
    said = pd.Series({text.get_position()[0]: text.get_text() for text in axis.texts})
    assert (said == "not run").sum() == 3 * 6 and list(said[said == "0"].index) == pytest.approx([place[order[-1]]])
    intervals = {tuple(line.get_ydata()) for line in axis.lines if len(line.get_ydata()) == 2}
    # 5 and 10 of 20 right: the quantiles of binomials (20, ¼) and (20, ½); where all are right there is no width
    assert intervals == {(0.1, 0.45), (1.0, 1.0), (0.3, 0.7)}


def test_each_method_has_a_panel_of_bars(tmp_path):
    success = dict.fromkeys(("reliability", "generalisation", "locality"), [1.0, 0.0])
    for method in ("rome", "rome_published"):
        single(tmp_path, "none", success, method=method)
    drawn = picture("rect_editing", tmp_path)
    assert [axis.get_title() for axis in drawn.axes] == ["rome", "rome_published"]
    assert [len(axis.patches) for axis in drawn.axes] == [3, 3]


def test_all_that_is_kept_is_seen_under_a_curve_that_coincides(tmp_path):
    rome(tmp_path, seed=0)
    rome(tmp_path, seed=1, constraint={"_target_": "afteredit.edit.constraints.x.Pca", "keep": 0.4})
    axis = panel(picture("rect_general", tmp_path), "sentiment")
    whole, pca = (line for line in axis.lines if line.get_linestyle() == "-")
    assert list(whole.get_ydata()) == list(pca.get_ydata()) and whole.get_zorder() <= pca.get_zorder()
    assert whole.get_linewidth() == 2 * pca.get_linewidth()
