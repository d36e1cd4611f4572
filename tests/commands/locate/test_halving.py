"""Successive halving tries the right candidates on the right numbers of rows."""

from __future__ import annotations

import pytest

from afteredit.commands.locate.halving import successive_halving


def test_the_better_half_is_tried_on_twice_as_many_rows():
    tried: list[tuple[str, int]] = []

    def score(candidate: str, n_rows: int) -> float:
        tried.append((candidate, n_rows))
        return {"a": 0.5, "b": 0.9, "c": 0.5, "d": 0.7, "e": 0.1}[candidate] - (candidate == "b" and n_rows > 4)

    assert successive_halving(list("abcde"), 4, 16, score) == "d"
    assert tried == [*((name, 4) for name in "abcde"), ("a", 8), ("b", 8), ("d", 8), ("a", 16), ("d", 16)]


@pytest.mark.parametrize(("n_first", "n_rows", "expected"), [(4, 6, [4, 6]), (9, 5, [5, 5])])
def test_no_round_has_more_rows_than_there_are_and_of_equals_the_first_is_left(n_first, n_rows, expected):
    rounds: list[int] = []
    left = successive_halving([3, 1, 2], n_first, n_rows, lambda _candidate, n: rounds.append(n) or 0.0)
    assert left == 3 and sorted(set(rounds)) == sorted(set(expected))


def test_one_candidate_needs_no_trial():
    assert successive_halving(["only"], 1, 1, lambda *_: 1 / 0) == "only"
