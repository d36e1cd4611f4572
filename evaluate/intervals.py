"""Makes 95 % intervals over examples by the bootstrap (scipy).

A score is Σ numerators / Σ denominators of its examples.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np

RESAMPLES = 4000


def interval(numerators: Sequence[float], denominators: Sequence[float]) -> tuple[float, float]:
    """Returns the interval of the score itself."""
    above_N, below_N = (np.asarray(values, dtype=float) for values in (numerators, denominators))

    def score(index, axis=-1):
        below = below_N[index].sum(axis=axis)
        return np.divide(above_N[index].sum(axis=axis), below, out=np.zeros_like(below), where=below != 0)

    return bootstrap([len(above_N)], score)


def bootstrap(sizes: Sequence[int], statistic: Callable, *, vectorized: bool = True) -> tuple[float, float]:
    """Returns the 95 % percentile interval of a statistic of examples that are drawn with replacement.

    `statistic` takes one array of drawn indices for each of `sizes`, so that all the numbers of an example are drawn
    together; each size is drawn from by itself.  Infinite where a size is below 2: one example tells nothing.
    """
    from scipy import stats

    if min(sizes) < 2:
        return float("-inf"), float("inf")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=stats.DegenerateDataWarning)  # nothing moved: an interval of width 0
        drawn = stats.bootstrap(tuple(np.arange(n) for n in sizes), statistic, vectorized=vectorized, batch=500,
                                method="percentile", n_resamples=RESAMPLES, rng=np.random.default_rng(0))  # fmt: skip
    return float(drawn.confidence_interval.low), float(drawn.confidence_interval.high)
