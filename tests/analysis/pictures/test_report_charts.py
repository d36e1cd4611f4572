"""The pictures of the report: what is drawn, where, and what the axes and legends say."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from matplotlib import pyplot as plt

from afteredit.analysis.numbers.comparison import comparisons
from afteredit.analysis.numbers.statistics import Correlation
from afteredit.analysis.pictures.report_charts import (
    abilities,
    drift_map,
    editing,
    first_look,
    heat_map,
    retained,
    trade_off,
)
from afteredit.analysis.pictures.report_style import TOGETHER, styles
from afteredit.analysis.read.run_folders import read

START = {"nli": [1.0] * 9 + [0.0], "reasoning": [0.0] * 10}
WORSE = {"nli": [1.0] * 7 + [0.0] * 3, "reasoning": [0.0] * 10}


def drawn(axis, look) -> dict[tuple, int]:
    """How often each line of a method's colour is on the axis: ((x, …), (y, …), width)."""
    found: dict[tuple, int] = {}
    for line in axis.lines:
        if line.get_color() == look["color"] and len(line.get_xdata()) > 1:
            xs, ys = (tuple(np.round(np.asarray(data, dtype=float), 3)) for data in line.get_data())
            key = (xs, ys, line.get_linewidth())
            found[key] = found.get(key, 0) + 1
    return found


def legend_of(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def figure_of(chart, comparison):
    """Returns the one picture of a chart's file."""
    (figure,) = chart.part(comparison, []).figures.values()
    return figure


def test_a_thick_line_for_each_method_a_thin_one_for_each_seed_and_bands(x):
    figure, look = figure_of(retained, x), styles(["memit", "rome"])
    left, right = figure.axes
    at = (0.0, 5.0, 10.0)
    assert drawn(left, look["memit"]) == {(at, (100, 50, 100), 1.9): 1}
    assert drawn(left, look["rome"]) == {(at, (100, 50, 50), 1.9): 1, (at, (100, 50, 50), 0.9): 2}
    assert drawn(right, look["memit"]) == {(at, (1, 1.25, 1.5), 1.9): 1}  # a ratio to the unedited model's
    assert drawn(right, look["rome"]) == {(at, (1, 1.25, 1.5), 1.9): 1, (at, (1, 1.25, 1.5), 0.9): 2}
    assert len(left.collections) == 2 and not right.collections  # bands: one per method, none over seeds
    band = left.collections[1].get_paths()[0].vertices
    low, high = x.curves.query("method == 'rome' and curve == 'retained' and n_edits == 10").iloc[0][["low", "high"]]
    assert {y for at_x, y in band if at_x == 10} == {100 * low, 100 * high} and low < 0.5 < high
    assert {"memit", "rome", "one seed (thick: mean)", "95 % over examples"} <= set(legend_of(figure))


def test_the_first_look_shows_every_ability_and_what_all_methods_leave(x):
    figure, look = figure_of(first_look, x), styles(["memit", "rome"])
    kept, perplexity, held, *each = figure.axes
    at = (0.0, 5.0, 10.0)
    assert drawn(kept, look["memit"]) == {(at, (100, 50, 100), 1.9): 1}
    assert drawn(perplexity, look["memit"]) == {(at, (1, 1.25, 1.5), 1.9): 1}
    assert drawn(held, look["memit"]) == {(at, (0, 100, 100), 1.9): 1}
    assert [axis.get_title() for axis in each] == ["Inference", "Reasoning\n(not measurable)"]
    assert drawn(each[0], look["memit"]) == {(at, (90, 70, 90), 1.9): 1}
    assert [line.get_ydata()[0] for line in each[0].lines if line.get_linestyle() == ":"] == [50]
    assert "above chance: 100 % with memit" in first_look.part(x, []).lead[1]


def test_axes_say_what_they_show_and_in_what_unit(x):
    left, right = figure_of(retained, x).axes
    assert left.get_ylabel() == "ability retained\n(% of the unedited score above chance)"
    assert right.get_ylabel() == "perplexity ÷ unedited model's (log scale)" and right.get_yscale() == "log"
    assert left.get_xlabel() == right.get_xlabel() == "edits applied" and list(left.get_xticks()) == [0, 5, 10]
    scores, gold, *_ = figure_of(abilities, x).axes
    assert scores.get_ylabel() == "change (points)\nunedited 90.0 %, chance 50.0 %"
    assert gold.get_ylabel() == "change of NLL\n(nats per token)"
    assert {axis.get_ylabel() for axis in figure_of(editing, x).axes} == {"share of prompts (%)"}
    trade, drift = figure_of(trade_off, x).axes, figure_of(drift_map, x).axes
    assert trade[0].get_xlabel() == "ability retained (% of the unedited score above chance)"
    assert trade[0].get_ylabel() == "retained edits (%)"
    assert drift[0].get_xlabel() == "perplexity ÷ unedited model's"
    assert drift[0].get_ylabel() == "ability retained\n(% of the unedited score above chance)"


@pytest.mark.parametrize(("lost", "shown"), [(0.9, False), (0.1, True)])
def test_chance_is_drawn_and_in_the_key_only_where_something_comes_near_it(tmp_path, made_run, lost, shown):
    left = {"nli": [1.0] * 30 + [0.0] * round(30 * (1 - lost)) + [1.0] * round(30 * lost), "reasoning": [0.0] * 60}
    made_run(tmp_path, "rome", 1, {0: {"nli": [1.0] * 60, "reasoning": [0.0] * 60}, 5: left})
    (x,) = comparisons(read([tmp_path]))
    figure = figure_of(retained, x)
    level = [line.get_ydata()[0] for line in figure.axes[0].lines if line.get_linestyle() == ":"]
    assert (level == [0]) == ("chance" in legend_of(figure)) == (figure.axes[0].get_ylim()[0] < 0) == shown
    scores = figure_of(abilities, x).axes[0]
    assert [line.get_ydata()[0] for line in scores.lines if line.get_linestyle() == ":"] == ([-50] if shown else [])
    plt.close("all")


def test_without_examples_there_is_no_band_in_the_key(tmp_path, made_run):
    folder = made_run(tmp_path, "rome", 1, {0: START, 5: WORSE})
    for path in (folder / "samples").iterdir():
        path.unlink()
    (x,) = comparisons(read([tmp_path]))
    assert legend_of(figure_of(retained, x)) == ["rome"]
    plt.close("all")


def test_what_is_not_measurable_is_grey_and_named_in_curves_and_hatched_in_the_map(x):
    measurable, _, unmeasurable, _ = figure_of(abilities, x).axes
    assert measurable.get_title(loc="left") == "Inference" and measurable.get_facecolor() == (1, 1, 1, 1)
    assert unmeasurable.get_title(loc="left") == "Reasoning — not measurable"
    assert unmeasurable.get_facecolor() != (1, 1, 1, 1)
    heat = heat_map.heat_map(x, [10]).axes[0]
    hatched = {(patch.get_x() + 0.5, patch.get_y() + 0.5) for patch in heat.patches if patch.get_hatch()}
    assert hatched == {(1, 0), (1, 1)}  # the second ability, both methods
    assert [text.get_text() for text in heat.texts].count("n. m.") == 2


def test_the_map_puts_the_method_that_lost_least_first_and_gives_each_cells_interval(x):
    heat, bar = heat_map.heat_map(x, [5, 10]).axes[1:]
    assert [text.get_text() for text in heat.get_yticklabels()] == ["memit", "rome"]
    assert [text.get_text() for text in heat.get_xticklabels()] == ["Inference", "Reasoning", "retained"]
    rome = x.curves.query("method == 'rome' and n_edits == 10").set_index("curve")
    half = 100 * (rome.loc["ability/nli", "high"] - rome.loc["ability/nli", "low"]) / 2 / (0.9 - 0.5)
    cells = [[text.get_text() for text in heat.texts if getattr(text, "xy", None) == (0, i)] for i in (0, 1)]
    assert cells == [["100", "± 0"], ["50", f"± {half:.0f}"]] and half > 10
    assert bar.get_ylabel() == "ability retained\n(% of the unedited score above chance)"
    assert bar._colorbar.extend == "both"


def test_damage_orders_the_map_whatever_the_names(tmp_path, made_run):
    for seed, (method, after) in enumerate([("a", WORSE), ("b", START)]):
        made_run(tmp_path, method, seed, {0: START, 5: after})
    (x,) = comparisons(read([tmp_path]))
    assert [text.get_text() for text in heat_map.heat_map(x, [5]).axes[0].get_yticklabels()] == ["b", "a"]
    assert legend_of(figure_of(trade_off, x))[:2] == ["b", "a"]
    plt.close("all")


def test_paths_go_from_the_first_checkpoint_to_the_last_and_say_their_edits(x):
    axis, look = figure_of(trade_off, x).axes[0], styles(["memit", "rome"])
    assert ((50, 100), (90, 90), 1) in drawn(axis, look["memit"])
    rings = [line.get_data() for line in axis.lines if line.get_markersize() == 11]
    assert np.array([[at[0], height[0]] for at, height in rings]) == pytest.approx(np.array([[50, 90], [50, 90]]))
    numbers = {(text.get_text(), text.get_color(), round(text.xy[0])) for text in axis.texts}
    memit, rome = look["memit"]["color"], look["rome"]["color"]
    assert numbers == {("5", memit, 50), ("10", memit, 100), ("10", rome, 50)}  # rome's 5 would lie on its 10
    heights = [text.xyann[1] for text in axis.texts if round(text.xy[0]) == 50]
    assert len(set(heights)) == 2  # one method's number above, the other's below
    left, right = axis.get_xlim()
    assert 40 < left < 50 and 100 < right < 110 and 80 < axis.get_ylim()[0] < 90


def test_drifts_log_scale_shows_the_warning_too(tmp_path, made_run):
    made_run(tmp_path, "rome", 1, {0: START, 5: WORSE, 10: WORSE}, perplexity={5: 40.0, 10: 400.0})
    (x,) = comparisons(read([tmp_path]))
    axis = figure_of(drift_map, x).axes[0]
    assert axis.get_xscale() == "log" and axis.get_xlim()[0] < 1.1 < axis.get_xlim()[1]
    assert axis.get_xlabel() == "perplexity ÷ unedited model's (log scale)"
    plt.close("all")


def test_drift_marks_the_warning_and_says_the_correlation(x):
    perplexity, _ = figure_of(drift_map, x).axes
    assert [line.get_xdata()[0] for line in perplexity.lines if line.get_linestyle() == "--"] == [1.1]
    assert re.match(r"Spearman ρ = −?\d\.\d\d, 95 % interval \[", perplexity.get_title())
    rho, nan = Correlation(-0.5, -0.75, -0.25, 9, "runs"), math.nan
    assert drift_map.correlation_text(rho) == "Spearman ρ = −0.50, 95 % interval [−0.75, −0.25] over runs"
    assert "not defined" in drift_map.correlation_text(rho._replace(rho=nan, low=nan))


def test_many_methods_are_shown_few_at_a_time_and_each_once(tmp_path, made_run):
    methods = [f"m{i}" for i in range(TOGETHER + 1)]
    for seed, method in enumerate(methods):
        made_run(tmp_path, method, seed, {0: START, 5: WORSE})
    (x,) = comparisons(read([tmp_path]))
    figures = abilities.part(x, []).figures
    shown = [text.get_text() for figure in figures.values() for text in figure.legends[0].get_texts()]
    assert sorted(text for text in shown if text in methods) == methods and len(figures) == 2
    assert shown.count("other methods") == 2
    plt.close("all")


def test_thirty_two_methods_can_be_told_apart_without_colour():
    looks = styles([str(i) for i in range(32)]).values()
    assert len({(look["marker"], look["linestyle"]) for look in looks}) == 32


def test_collapse_is_marked(tmp_path, made_run):
    made_run(tmp_path, "rome", 1, {0: START, 5: WORSE}, perplexity={5: 1e300})
    (x,) = comparisons(read([tmp_path]))
    figure = figure_of(retained, x)
    assert [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_marker() == "X"] == [5]
    assert figure.axes[1].get_ylim()[1] < 1e6  # 1e300 does not set the scale
    plt.close("all")


def test_shares_of_methods_and_abilities(losses):
    table = heat_map.shares(losses, 20)
    assert table.loc["rome", "Inference"] == pytest.approx(0.25) and table.loc["memit", "Inference"] == 1
    assert math.isnan(table.loc["rome", "Reasoning"]) and table.loc["rome", "retained"] == pytest.approx(0.25)
