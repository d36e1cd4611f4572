"""Makes 95 % intervals over examples by the bootstrap (scipy).

A score is Σ numerators / Σ denominators of its examples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RESAMPLES = 4000


def interval(numerators: Sequence[float], denominators: Sequence[float]) -> tuple[float, float]:
    """Returns the interval of the score itself."""
    return _bootstrap((numerators, denominators), _ratio)


def change_interval(
    before: tuple[Sequence[float], Sequence[float]], after: tuple[Sequence[float], Sequence[float]]
) -> tuple[float, float]:
    """Returns the interval of score after − score before, over the same examples in the same order (paired)."""

    def change(n0, d0, n1, d1, axis=-1):
        return _ratio(n1, d1, axis=axis) - _ratio(n0, d0, axis=axis)

    return _bootstrap((*before, *after), change)


def _ratio(numerators, denominators, axis=-1):
    total = denominators.sum(axis=axis)
    return np.divide(numerators.sum(axis=axis), total, out=np.zeros_like(total, dtype=float), where=total != 0)


def _bootstrap(samples, statistic) -> tuple[float, float]:
    from scipy.stats import bootstrap

    arrays = tuple(np.asarray(sample, dtype=float) for sample in samples)
    if len(arrays[0]) < 2:
        return float("-inf"), float("inf")  # one example tells nothing
    result = bootstrap(arrays, statistic, paired=True, vectorized=True, method="percentile", n_resamples=RESAMPLES,
                       batch=500, rng=np.random.default_rng(0))  # fmt: skip
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
