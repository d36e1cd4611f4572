"""The picture of a run."""

from __future__ import annotations

import math

import numpy as np
import pytest
from matplotlib import image
from matplotlib import pyplot as plt

from afteredit.analysis.pictures.axes import log_axis, thinned
from afteredit.analysis.pictures.run_curves import curves_figure, draw_curves

CHANCE = {"nli": 0.5, "reasoning": 0.0, "absent": 0.25}


def rows() -> list[dict]:
    first = {"n_edits": 0, "ability/nli": 0.8, "ability/reasoning": 0.1, "ability/nli/gold_nll": 0.5,
             "drift/perplexity": 20.0, "measurable": ["nli"]}  # fmt: skip
    second = {"n_edits": 5, "ability/nli": 0.7, "ability/nli/gold_nll": 0.75, "editing/immediate/prob/efficacy": 1.0,
              "drift/perplexity": 1e6}  # fmt: skip
    return [first, second, {"n_edits": 10, "drift/perplexity": 1e300, "editing/retained/prob/efficacy": 0.5}]


@pytest.fixture
def panels():
    figure = curves_figure(rows(), CHANCE, "a run")
    yield figure.axes
    plt.close("all")


def lines(axis) -> dict[str, list[tuple[float, float]]]:
    """By label, of the lines that have one."""
    return {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in axis.lines
            if not line.get_label().startswith("_")}  # fmt: skip


def test_the_picture_is_written_and_closed(tmp_path):
    path = draw_curves(rows(), CHANCE, tmp_path / "curves.png", "a run")
    height, width, _ = image.imread(path).shape
    assert width >= 1000 and height >= 700
    assert not plt.get_fignums()


def test_each_line_goes_through_what_was_measured(panels):
    abilities, editing, gold, perplexity = panels
    assert lines(abilities) == {"nli": [(0, 80), (5, 70)], "reasoning (not measurable)": [(0, 10)]}
    assert lines(editing) == {"efficacy, right after the edit": [(5, 100)], "efficacy, retained": [(10, 50)]}
    assert lines(gold) == {"nli": [(0, 0), (5, 0.25)]}
    assert lines(perplexity) == {"held-out text": [(0, 20), (5, 20_000), (10, 20_000)]}  # at most 1000 times the first


def test_what_is_not_measurable_is_faint_and_chance_is_dotted(panels):
    by_label = {line.get_label(): line for line in panels[0].lines}
    assert by_label["nli"].get_alpha() == 1 and by_label["reasoning (not measurable)"].get_alpha() < 0.5
    chance = [line.get_ydata()[0] for line in panels[0].lines if line.get_label().startswith("_")]
    assert chance == [50, 25]


def test_lines_of_a_panel_differ_in_dash_and_mark():
    names = [f"a{i}" for i in range(8)]
    first = {"n_edits": 0, **{f"ability/{name}": 0.5 for name in names}, "measurable": names}
    axis = curves_figure([first, {**first, "n_edits": 5}], dict.fromkeys(names, 0.0), "").axes[0]
    drawn = [line for line in axis.lines if line.get_label() in names]
    assert len({line.get_marker() for line in drawn}) == 8 and len({line.get_linestyle() for line in drawn}) == 4
    assert all(a.get_linestyle() != b.get_linestyle() for a, b in zip(drawn, drawn[1:], strict=False))
    plt.close("all")


def test_ticks_are_at_the_checkpoints_and_axes_have_units(panels):
    for axis in panels:
        assert axis.get_xticks().tolist() == [0, 5, 10] and axis.get_xlabel() == "edits applied"
    score, prompts, nll, perplexity = (axis.get_ylabel() for axis in panels)
    assert (score, prompts) == ("score (%)", "share of prompts (%)")
    assert (nll, perplexity) == ("NLL since 0 edits (nats per token)", "perplexity (log scale)")


@pytest.mark.parametrize(
    ("checkpoints", "ticks"),
    [([0, 5, 10, 15, 20], [0, 5, 10, 15, 20]), (range(0, 101, 5), [0, 20, 40, 60, 80, 100]),
     (range(16), [0, 3, 6, 9, 12, 15]), ([0], [0])],
)  # fmt: skip
def test_ticks_are_thinned_so_that_the_last_checkpoint_keeps_its_own(checkpoints, ticks):
    assert thinned(list(checkpoints), 9) == ticks


@pytest.mark.parametrize("most", [4, 9])
def test_never_more_ticks_than_asked_for(most):
    for n in range(1, 200):
        assert len(thinned(list(range(n)), most)) <= most


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [(0.15, 6, ["0.3", "1", "3"]), (0.9, 1.2, ["0.9", "1", "1.1", "1.2"]), (0.005, 0.3, ["0.01", "0.03", "0.1", "0.3"]),
     (0.8, 2000, ["1", "10", "100", "1000"]), (0.05, 0.6, ["0.05", "0.1", "0.2", "0.5"]),
     (0.9, 4.3, ["1", "1.5", "2", "3"])],
)  # fmt: skip
@pytest.mark.parametrize("which", ["x", "y"])
def test_ticks_of_a_log_scale_are_plain_numbers(low, high, texts, which):
    figure, axis = plt.subplots()
    log_axis(axis, which, low, high)
    figure.canvas.draw()
    own = axis.xaxis if which == "x" else axis.yaxis
    assert [text.get_text() for text in own.get_ticklabels()] == texts and own.get_scale() == "log"
    assert not own.get_ticklabels(minor=True)
    plt.close(figure)


def test_a_single_row_without_abilities_is_drawn_too(tmp_path):
    path = draw_curves([{"n_edits": 0, "drift/perplexity": 20.0}], {}, tmp_path / "curves.png", "a run")
    assert path.exists()


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_broken_models_perplexity_ends_no_picture(broken):
    axis = curves_figure([*rows()[:1], {"n_edits": 5, "drift/perplexity": broken}], {}, "").axes[3]
    assert np.isfinite(axis.get_ylim()).all()
    plt.close("all")
