"""What a browser is told of a drawn figure."""

from __future__ import annotations

import json
import math

import pytest
from matplotlib import pyplot as plt

from afteredit.analysis.pictures.axes import edits_axis, log_axis
from afteredit.analysis.pictures.live_panels import key_to, live_panels
from afteredit.analysis.pictures.report_style import styles


@pytest.fixture
def axes():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def panel_of(axes) -> dict:
    axes.figure.draw_without_rendering()
    (panel,) = live_panels(axes.figure)
    return panel


def test_lines_bands_levels_and_marks_keep_their_numbers_and_say_to_which_method_they_belong(axes):
    axes.plot([0, 5], [1.0, math.nan], **{**styles(["rome"])["rome"], "label": "rome\nseed 1"})
    axes.fill_between([0, 5], [1, 2], [3, 4], label="rome")
    axes.axhline(7, linestyle=":")
    axes.plot([5], [0.03], marker="X", transform=axes.get_xaxis_transform(), label="rome\ncollapsed")
    panel = panel_of(axes)
    (line,), (band,), (mark,) = panel["lines"], panel["bands"], panel["collapses"]
    assert (line["method"], line["about"], line["x"], line["y"]) == ("rome", "seed 1", [0, 5], [1, None])
    assert (line["colour"], line["dash"], line["marker"], line["at"]) == ("#0072b2", "solid", "circle", ["0", "5"])
    assert band["method"] == "rome" and {(0, 1), (5, 2), (5, 4), (0, 3)} == set(zip(band["x"], band["y"], strict=True))
    assert panel["levels"] == [{"dash": "dot", "y": 7}]
    assert (mark["x"], mark["about"]) == (5, "collapsed")


def test_axes_keep_their_ticks_and_a_stretched_one_is_drawn_as_a_linear_one(axes):
    axes.plot([0, 1, 10, 100], [1, 10, 100, 1000])
    edits_axis(axes, [0, 1, 10, 100])
    log_axis(axes, "y", 1, 1000)
    panel = panel_of(axes)
    assert panel["y"]["log"] and panel["y"]["range"] == [0, 3] and "100" in panel["y"]["labels"]
    assert panel["x"]["stretched"] and panel["x"]["labels"] == ["0", "1", "10", "100"]
    (line,) = panel["lines"]
    zero, one, ten, hundred = line["x"]
    assert panel["x"]["ticks"] == line["x"] and zero == 0 and hundred - ten == pytest.approx(ten - one, rel=1e-4)
    assert line["at"] == ["0", "1", "10", "100"] and line["method"] == ""


def test_what_has_no_place_is_left_out(axes):
    axes.axhline(math.nan, linestyle=":")
    axes.annotate("5", (math.nan, 1))
    axes.annotate("6", (0.5, 0.5), xytext=(0, 8), textcoords="offset points")
    panel = panel_of(axes)
    assert panel["levels"] == [] and [(text["text"], text["shift"]) for text in panel["texts"]] == [("6", [0, 8])]
    json.dumps(panel, allow_nan=False)


def test_a_figure_with_other_marks_stays_a_picture(axes):
    axes.plot([0, 1], [0, 1])
    axes.bar([0, 1], [1, 2])
    axes.figure.draw_without_rendering()
    assert live_panels(axes.figure) == [] and key_to(axes.figure, []) == []
