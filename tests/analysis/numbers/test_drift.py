"""Drift and its correlation with ability."""

from __future__ import annotations

import math

import pytest

from afteredit.analysis.numbers.drift import correlations


def test_perplexity_and_ability_are_correlated_over_all_checkpoints_but_the_first(losses):
    found = correlations(losses)["perplexity"]
    # ratios 1, 1.5 (memit: 1, 1), 1.05, 450 (0.75, 0), 1.125, 1.25 (1, 0.5); ties at 1 share rank 5
    ranks = [(1, 5), (5, 5), (2, 3), (6, 1), (3, 5), (4, 2)]
    assert found.n_points == 6 and found.rho == pytest.approx(pearson(ranks))


def pearson(pairs):
    n = len(pairs)
    mean = [sum(p[i] for p in pairs) / n for i in (0, 1)]
    moment = lambda i, j: sum((p[i] - mean[i]) * (p[j] - mean[j]) for p in pairs)  # noqa: E731
    return moment(0, 1) / math.sqrt(moment(0, 0) * moment(1, 1))
