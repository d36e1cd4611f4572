"""The report's tables on made-up runs, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest

from afteredit.analysis.numbers.comparison import comparisons
from afteredit.analysis.pictures.heat_and_drift import chosen_checkpoints, correlations, shares
from afteredit.analysis.read.run_folders import read
from afteredit.analysis.tables.report_tables import (
    abilities_table,
    drops,
    methods_table,
    until_text,
    verdict,
    warnings_table,
)

RIGHT = [1.0] * 18 + [0.0] * 2  # 0.9: 0.4 above nli's chance


def right(n: int) -> dict:
    return {"nli": [1.0] * n + [0.0] * (20 - n), "reasoning": [0.0] * 20}


@pytest.fixture
def x(tmp_path, made_run):
    """memit loses nothing.  rome, by nli: seed 1 keeps (16 − 10)/8 = 75 % after 10, 0 after 20; seed 2 all, then half.

    Perplexity 20, then as given: +10 % is past 22.
    """
    made_run(tmp_path, "memit", 3, {n: right(18) for n in (0, 10, 20)}, perplexity={10: 20.0, 20: 30.0})
    made_run(tmp_path, "rome", 1, {0: right(18), 10: right(16), 20: right(10)}, perplexity={10: 21.0, 20: 9000.0})
    made_run(tmp_path, "rome", 2, {0: right(18), 10: right(18), 20: right(14)}, perplexity={10: 22.5, 20: 25.0})
    (only,) = comparisons(read([tmp_path]))
    return only


def test_methods_area_loss_and_collapse(x):
    memit, rome = methods_table(x).to_dict("records")
    assert memit["edits until 10 % lost"] == memit["edits until 50 % lost"] == memit["collapse at"] == "> 20"
    assert memit["area under retention (%)"] == "100.0" and memit["runs"] == "1"
    # seed 1: (1 + 0.75)/2 and (0.75 + 0)/2 → 62.5; seed 2: 1 and (1 + 0.5)/2 → 87.5
    assert rome["area under retention (%)"] == "75.0 (62.5–87.5)"
    assert rome["ability retained at the end (%)"] == "25.0 (0.0–50.0)"
    assert rome["edits until 10 % lost"] == "10 · 20" and rome["edits until 50 % lost"] == "20"
    assert rome["collapse at"] == "20 · > 20"
    assert rome["perplexity ÷ unedited"] == "225.62 (1.25–450.00)"
    assert rome["edits retained, generated (%)"] == "90.0"


def test_drops_with_paired_test_and_holm_over_all_methods(x):
    numbers = drops(x)
    by = numbers.set_index(["method", "ability"])
    rome = by.loc[("rome", "nli")]
    assert (rome["n_edits"], rome["n_runs"], rome["n_examples"]) == (20, 2, 20)
    assert rome["before"] == pytest.approx(0.9) and rome["after"] == pytest.approx((10 + 14) / 40)
    # 8 examples fell, in one run or in both: all of one sign, 2 of 2⁸ exchanges as far; 2 tests, the other's p is 1
    assert rome["p"] == pytest.approx(2 / 2**8) and rome["p_holm"] == pytest.approx(2 * 2 / 2**8)
    assert by.loc[("memit", "nli"), "p"] == by.loc[("memit", "nli"), "p_holm"] == 1
    assert rome["low"] < -0.3 < rome["high"] < 0


def test_what_is_not_measurable_is_marked_and_not_tested(x):
    numbers = drops(x)
    unmeasurable = numbers[numbers["ability"] == "reasoning"]
    assert not unmeasurable["measurable"].any() and unmeasurable[["p", "p_holm", "area"]].isna().all().all()
    text = abilities_table(x, numbers).set_index(["method", "ability"])
    row = text.loc[("rome", "Reasoning (not measurable)")]
    assert row["p, Holm"] == "" and row["edits until 10 % lost"] == "" and row["unparseable (%)"] == "25.0 → 25.0"
    rome = text.loc[("rome", "Inference")]
    assert rome["p, Holm"] == "0.016 *" and rome["change (points), 95 % interval"].startswith("−30.0 [−4")
    assert text.loc[("memit", "Inference"), "p, Holm"] == "1.000"


def test_did_perplexity_warn(x):
    said = [row["did it warn?"] for row in warnings_table(x).to_dict("records")]
    assert said == ["false alarm so far", "too late", "in time"]  # memit; rome 1 lost at 10, warned at 20; rome 2


@pytest.mark.parametrize(
    ("warned", "lost", "said"),
    [(5, 10, "in time"), (10, 10, "at the same checkpoint"), (15, 10, "too late"), (None, 10, "no warning"),
     (5, None, "false alarm so far"), (None, None, "nothing to warn of")],
)  # fmt: skip
def test_verdicts(warned, lost, said):
    assert verdict(warned, lost) == said


def test_never_reached_is_censored_where_the_run_ended():
    assert until_text([10, None], [30, 25]) == "10 · > 25"
    assert until_text([math.nan, math.nan], [30, 30]) == "> 30"
    assert until_text([10, 20, 30, None, None], [60] * 5) == "median 30 (not reached in 2 of 5)"
    assert until_text([10, None, None, None, None], [60] * 5) == "median > 60 (not reached in 4 of 5)"


def test_shares_of_methods_and_abilities(x):
    table = shares(x, 20)
    assert table.loc["rome", "Inference"] == pytest.approx(0.25) and table.loc["memit", "Inference"] == 1
    assert math.isnan(table.loc["rome", "Reasoning"]) and table.loc["rome", "all measurable"] == pytest.approx(0.25)


def test_chosen_checkpoints(x):
    assert chosen_checkpoints(x, []) == [10, 20] and chosen_checkpoints(x, [20]) == [20]


def test_of_many_checkpoints_the_last_and_others_evenly_before_it(tmp_path, made_run):
    made_run(tmp_path / "long", "rome", 1, {n: right(18) for n in range(0, 100, 10)})
    (only,) = comparisons(read([tmp_path / "long"]))
    assert chosen_checkpoints(only, []) == [30, 60, 90]


def test_perplexity_and_ability_are_correlated_over_all_checkpoints_but_the_first(x):
    found = correlations(x)["perplexity"]
    # ratios 1, 1.5 (memit: 1, 1), 1.05, 450 (0.75, 0), 1.125, 1.25 (1, 0.5); ties at 1 share rank 5
    ranks = [(1, 5), (5, 5), (2, 3), (6, 1), (3, 5), (4, 2)]
    assert found.n_points == 6 and found.rho == pytest.approx(pearson(ranks))


def pearson(pairs):
    n = len(pairs)
    mean = [sum(p[i] for p in pairs) / n for i in (0, 1)]
    moment = lambda i, j: sum((p[i] - mean[i]) * (p[j] - mean[j]) for p in pairs)  # noqa: E731
    return moment(0, 1) / math.sqrt(moment(0, 0) * moment(1, 1))
