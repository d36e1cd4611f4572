"""Intervals, tests and correlations against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from afteredit.analysis.numbers import statistics


def scores(*runs: list[float], denominators: list[float] | None = None) -> np.ndarray:
    """scores_S2N of runs' numerators."""
    return np.array([[run, denominators or [1.0] * len(run)] for run in runs], dtype=float)


def test_change_is_of_sums_and_the_mean_over_runs():
    before = scores([1, 1, 0, 0], [1, 1, 0, 0], denominators=[1, 1, 1, 5])  # 2 of 8
    after = scores([1, 1, 1, 1], [0, 0, 0, 0], denominators=[1, 1, 1, 5])  # 4 of 8, 0 of 8
    assert statistics.change(before, after) == pytest.approx(((4 - 2) / 8 + (0 - 2) / 8) / 2)


def test_pairing_cancels_what_examples_share():
    """Half the examples are hard; every one falls by exactly 0.1, which a bootstrap without pairing would not know."""
    before = scores([0.0, 1.0] * 20)
    low, high = statistics.change_interval(before, before - np.array([[0.1], [0.0]]))
    assert low == pytest.approx(-0.1) and high == pytest.approx(-0.1)


def test_interval_of_a_share_is_the_binomials():
    before, after = scores([1] * 100), scores([1] * 80 + [0] * 20)
    low, high = statistics.change_interval(before, after)
    assert low == pytest.approx(-0.2 - 1.96 * 0.04, abs=0.015) and high == pytest.approx(-0.2 + 1.96 * 0.04, abs=0.015)


def test_seeds_are_no_examples():
    """Three equal runs say no more about examples than one."""
    one = statistics.change_interval(scores([1] * 50), scores([1] * 40 + [0] * 10))
    three = statistics.change_interval(scores(*[[1] * 50] * 3), scores(*[[1] * 40 + [0] * 10] * 3))
    assert one == pytest.approx(three)


def test_ratio_of_sums_and_plain_mean_agree_where_they_are_the_same():
    before, after = scores([1] * 30), scores([1] * 20 + [0] * 10)
    twice = np.array([[1.0], [2.0]])  # every example counts 2, so the score is halved
    low, high = statistics.change_interval(before, after)
    assert statistics.change_interval(before * twice, after * twice) == pytest.approx((low / 2, high / 2))


def test_retained_interval_puts_each_ability_on_its_own_scale():
    before, after = scores([1.0] * 10), scores([0.8] * 10)  # every example loses 0.2
    same = statistics.retained_interval({"a": (before, after), "b": (before, before)}, {"a": [0.4], "b": [0.1]})
    assert same == pytest.approx(((1 - 0.5 + 1) / 2,) * 2)


def test_each_run_is_on_its_own_scale():
    """Two runs whose unedited scores differ each lose all they had above chance."""
    before, after = scores([1.0] * 10, [0.75] * 10), scores([0.5] * 10, [0.5] * 10)
    assert statistics.retained_interval({"a": (before, after)}, {"a": [0.5, 0.25]}) == pytest.approx((0, 0))


def test_one_example_says_nothing():
    assert statistics.change_interval(scores([1]), scores([0])) == (-math.inf, math.inf)


@pytest.mark.parametrize(("lost", "won"), [(5, 0), (6, 1), (8, 2), (1, 0), (3, 3)])
def test_p_of_right_and_wrong_answers_is_mcnemars(lost, won):
    from statsmodels.stats.contingency_tables import mcnemar

    before = scores([1] * lost + [0] * won + [1, 0] * 10)
    after = scores([0] * lost + [1] * won + [1, 0] * 10)
    wanted = mcnemar([[10, lost], [won, 10]], exact=True).pvalue
    assert statistics.p_value(before, after) == pytest.approx(min(wanted, 1.0))


def test_p_worked_out_by_hand_five_lost_none_won():
    assert statistics.p_value(scores([1] * 5 + [0] * 20), scores([0] * 25)) == pytest.approx(2 / 2**5)


def test_p_is_paired_small_steady_losses_among_large_differences_are_seen():
    before = scores(list(np.linspace(0, 1, 12)))
    after = before - np.array([[0.01], [0.0]])
    assert statistics.p_value(before, after) == pytest.approx(2 / 2**12)


def test_p_of_no_change_is_one():
    same = scores([1, 0, 1, 0])
    assert statistics.p_value(same, same) == 1.0


def test_p_of_a_ratio_of_sums_keeps_the_denominators_of_what_did_not_change():
    """Two examples changed, so four exchanges: changes of ±4/12 and two of 0; the least is 1 of 4, two-sided 2 of 4."""
    before = scores([2, 2, 0], denominators=[2, 2, 8])
    assert statistics.p_value(before, scores([0, 0, 0], denominators=[2, 2, 8])) == pytest.approx(0.5)


def test_holm_by_hand():
    # sorted: 0.01 × 4, 0.02 × 3, 0.03 × 2, 0.5 × 1; never below the one before
    assert statistics.holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert statistics.holm([]) == []


def test_median_until_counts_those_that_never_got_there():
    assert statistics.median_until([10, 20, 30, 40, 50], [60] * 5) == 30
    assert statistics.median_until([10, 20, None, None, None], [60] * 5) is None
    # Kaplan–Meier by hand: the one censored at 15 leaves after 10; 4/5, then × 2/3 at 20 (3 at risk), × 1/2 at 30
    assert statistics.median_until([10, None, 20, 30, None], [60, 15, 60, 60, 60]) == 30


def points(*pairs: tuple[float, float]) -> np.ndarray:
    return np.array(pairs, dtype=float)


def test_rank_correlation_sees_order_only_and_draws_runs_whole():
    runs = [points((1 + i / 10, 1), (10 + i, 0.5), (1e9, 0.1 * i / 10)) for i in range(5)]
    found = statistics.rank_correlation(runs)
    assert found.over == "runs" and found.n_points == 15
    assert found.low <= found.rho <= found.high and found.rho < -0.85


def test_rank_correlation_of_few_runs_is_over_checkpoints_and_of_few_checkpoints_has_no_interval():
    few = statistics.rank_correlation([points((1, 5), (2, 4), (3, 3), (4, 2), (5, 1), (6, 0))])
    assert few.rho == pytest.approx(-1) and few.over == "checkpoints" and few.high == pytest.approx(-1)
    assert math.isnan(statistics.rank_correlation([points((1, 3), (2, 2), (3, 1))]).low)
    assert math.isnan(statistics.rank_correlation([points((1, 3), (1, 2), (1, 1))]).rho)
    assert math.isnan(statistics.rank_correlation([]).rho)


def test_infinite_perplexity_ranks_last():
    assert statistics.rank_correlation([points((1, 1), (2, 0.9), (math.inf, 0.1))]).rho == pytest.approx(-1)
