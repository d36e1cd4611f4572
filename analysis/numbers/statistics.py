"""Intervals, tests and correlations, by scipy and statsmodels.

There are S runs (seeds) and N examples.  A score is Σ numerators / Σ denominators of its examples, so an example is a
pair of numbers and a measurement is `scores_S2N`.  Everything is paired: an example is drawn together with its scores
in every run, before and after.  An interval is over examples, given these seeds; two or three seeds give no interval.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from afteredit.evaluate.intervals import bootstrap

PERMUTATIONS = 9999
FEWEST_RUNS = 5  # fewer are not resampled

Paired = tuple[np.ndarray, np.ndarray]  # before_S2N, after_S2N


class Correlation(NamedTuple):
    """Spearman's rank correlation, with its 95 % interval over `over` (runs, or checkpoints where runs are few)."""

    rho: float
    low: float
    high: float
    n_points: int
    over: str


def change(before_S2N: np.ndarray, after_S2N: np.ndarray) -> float:
    """Returns score after − score before, the mean over the runs."""
    return float(_mean_change(before_S2N, after_S2N))


def change_interval(before_S2N: np.ndarray, after_S2N: np.ndarray) -> tuple[float, float]:
    """Returns the 95 % bootstrap interval of `change` over examples."""
    drawn_change = _change_of_drawn(before_S2N, after_S2N)
    return bootstrap([before_S2N.shape[-1]], lambda index, axis=-1: drawn_change(index))


def retained_interval(paired: Mapping[str, Paired], above_chance: Mapping[str, Sequence[float]]) -> tuple[float, float]:
    """Returns the 95 % bootstrap interval of the mean share left, over abilities and runs.

    The share is 1 + change / (base − chance), which is (score − chance) / (base − chance) at the scores themselves;
    examples are drawn for each ability by itself.  `above_chance` holds every run's base − chance for each ability; it
    is not drawn again, because a base near chance would make the quotient jump.
    """
    drawn_changes = []
    for name, scores in paired.items():
        unit_S21 = np.ones((len(scores[0]), 2, 1))
        unit_S21[:, 0, 0] = above_chance[name]  # numerators in units of it: a change is then a share
        drawn_changes.append(_change_of_drawn(*(scores_S2N / unit_S21 for scores_S2N in scores)))

    def statistic(*indices, axis=-1):
        shares = [1 + drawn_change(index) for index, drawn_change in zip(indices, drawn_changes, strict=True)]
        return np.mean(shares, axis=0)

    return bootstrap([before.shape[-1] for before, _ in paired.values()], statistic)


def p_value(before_S2N: np.ndarray, after_S2N: np.ndarray) -> float:
    """Returns p of a two-sided paired permutation test of `change`: before and after are exchanged for each example.

    For one run's right and wrong answers this is McNemar's exact test.  Examples that did not change stay as they are;
    all exchanges are tried where 13 or fewer changed, else 9999 random ones.
    """
    from scipy import stats

    changed_N = (before_S2N != after_S2N).any(axis=(0, 1))
    n_changed = int(changed_N.sum())
    if n_changed == 0:
        return 1.0
    both_S2N = np.concatenate([before_S2N[..., changed_N], after_S2N[..., changed_N]], axis=-1)
    same_S2 = before_S2N[..., ~changed_N].sum(axis=-1)

    def statistic(first, second, axis=-1):
        return _mean_change(both_S2N[..., first], both_S2N[..., second], same_S2)

    data = np.arange(n_changed), np.arange(n_changed) + n_changed
    if n_changed == 1:  # scipy requires two observations; both exchanges are equally far from 0
        return 1.0
    return float(stats.permutation_test(data, statistic, permutation_type="samples", vectorized=True, batch=500,
                                        n_resamples=PERMUTATIONS, rng=np.random.default_rng(0)).pvalue)  # fmt: skip


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns the p-values corrected for their number by Holm's step-down (family-wise error rate)."""
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(p_values, method="holm")[1]] if len(p_values) else []


def median_until(reached: Sequence[float | None], last: Sequence[float]) -> float | None:
    """Returns the Kaplan–Meier median of the edits until something happens, None where fewer than half came so far.

    `reached` holds None for a run in which it has not happened by its end, `last` (right-censored).
    """
    from scipy import stats

    times = [end if at is None else at for at, end in zip(reached, last, strict=True)]
    curve = stats.ecdf(stats.CensoredData.right_censored(times, [at is None for at in reached])).sf
    below = curve.quantiles[curve.probabilities <= 0.5 + 1e-12]
    return float(below[0]) if len(below) else None


def rank_correlation(points_by_run: Sequence[np.ndarray]) -> Correlation:
    """Returns the correlation of the two columns of (P, 2) points, one array per run.

    The checkpoints of one run depend on each other, so whole runs are drawn where there are enough of them.
    """
    points = np.concatenate(points_by_run) if len(points_by_run) else np.empty((0, 2))
    rho = _spearman(points)
    over = "runs" if len(points_by_run) >= FEWEST_RUNS else "checkpoints"
    parts = list(points_by_run) if over == "runs" else [point[None] for point in points]
    if len(parts) < FEWEST_RUNS:
        return Correlation(rho, np.nan, np.nan, len(points), over)

    def statistic(index):
        drawn = _spearman(np.concatenate([parts[i] for i in index]))
        return 0.0 if np.isnan(drawn) else drawn  # all are equal: there is no order

    return Correlation(rho, *bootstrap([len(parts)], statistic, vectorized=False), len(points), over)


def _change_of_drawn(before_S2N: np.ndarray, after_S2N: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function from indices of examples (…, N) to the change over them."""
    if (before_S2N[:, 1] == 1).all() and (after_S2N[:, 1] == 1).all():  # plain means: one number per example is enough
        difference_N = (after_S2N[:, 0] - before_S2N[:, 0]).mean(axis=0)
        return lambda index: difference_N[index].mean(axis=-1)
    return lambda index: _mean_change(before_S2N[..., index], after_S2N[..., index])


def _mean_change(before_S2BN: np.ndarray, after_S2BN: np.ndarray, more_S2: np.ndarray | float = 0.0) -> np.ndarray:
    """Returns the change over the last axis, of shape B (a batch of resamples, or none).

    `more_S2` holds the sums of examples that are left out of both.
    """
    more_S2B = np.asarray(more_S2)
    if more_S2B.ndim:
        more_S2B = more_S2B.reshape(*more_S2B.shape, *[1] * (before_S2BN.ndim - 3))
    return (_ratio(after_S2BN.sum(axis=-1) + more_S2B) - _ratio(before_S2BN.sum(axis=-1) + more_S2B)).mean(axis=0)


def _ratio(sums_S2B: np.ndarray) -> np.ndarray:
    above, below = sums_S2B[:, 0], sums_S2B[:, 1]
    return np.divide(above, below, out=np.zeros_like(above), where=below != 0)


def _spearman(points: np.ndarray) -> float:
    from scipy import stats

    if len(points) < 3 or (points == points[0]).all(axis=0).any():
        return float("nan")
    return float(stats.spearmanr(points[:, 0], points[:, 1]).statistic)
