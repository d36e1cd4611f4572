"""Bootstrap intervals agree with those known in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from afteredit.evaluate.intervals import interval


def ones(n_right: int, n: int) -> np.ndarray:
    return np.repeat([1.0, 0.0], [n_right, n - n_right])


@pytest.mark.parametrize(("n_right", "n"), [(140, 200), (30, 60), (450, 500)])
def test_the_interval_of_an_accuracy_is_close_to_the_normal_approximation(n_right, n):
    p = n_right / n
    half = 1.96 * np.sqrt(p * (1 - p) / n)
    assert interval(ones(n_right, n), np.ones(n)) == pytest.approx((p - half, p + half), abs=0.015)


def test_a_ratio_of_sums_is_resampled_as_one():
    numerators, denominators = [2.0, 6.0, 0.0, 1.0] * 20, [4.0, 8.0, 0.0, 8.0] * 20
    low, high = interval(numerators, denominators)
    ratio = sum(numerators) / sum(denominators)
    assert low < ratio < high and high - low < 0.3
    mean_of_ratios = np.mean([0.5, 0.75, 0.125])
    assert abs((low + high) / 2 - ratio) < abs((low + high) / 2 - mean_of_ratios)


def test_scale_of_the_denominators_does_not_matter_for_a_constant_ratio():
    assert interval([1.0, 2.0, 4.0], [2.0, 4.0, 8.0]) == (0.5, 0.5)


def test_samples_without_any_denominator_score_zero_instead_of_failing():
    assert interval([0.0, 0.0, 0.0], [0.0, 0.0, 0.0]) == (0.0, 0.0)


def test_one_example_gives_no_bounds():
    assert interval([1.0], [1.0]) == (float("-inf"), float("inf"))


def test_the_same_sample_gives_the_same_interval():
    sample = ones(7, 20), np.ones(20)
    assert interval(*sample) == interval(*sample)
