"""Successive halving: all candidates are tried on a few rows, the better half on twice as many, until one is left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

Candidate = TypeVar("Candidate")


def successive_halving(
    candidates: Sequence[Candidate], n_first: int, n_rows: int, score: Callable[[Candidate, int], float]
) -> Candidate:
    """Returns the candidate that is left.

    `score(candidate, n)` says how well it does on the first n rows; of equals the one that comes first is better.  The
    first round has `n_first` rows, and no round more than `n_rows`.
    """
    left, n = list(candidates), min(n_first, n_rows)
    while len(left) > 1:
        scores = [score(candidate, n) for candidate in left]
        ranking = sorted(range(len(left)), key=lambda i: -scores[i])
        left, n = [left[i] for i in sorted(ranking[: (len(left) + 1) // 2])], min(2 * n, n_rows)
    return left[0]
