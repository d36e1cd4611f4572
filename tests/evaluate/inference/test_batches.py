"""Batches hold every row once, within the budgets, and no other cut of the sorted rows is cheaper."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from afteredit.evaluate.inference import batches
from afteredit.evaluate.inference.batches import RowSize, cheapest_batches


def drawn(n: int, longest: int) -> dict[int, RowSize]:
    rng = random.Random(1)
    return {row: RowSize(tokens := rng.randrange(1, longest), tokens + rng.randrange(20)) for row in range(n)}


def test_batches_hold_every_row_once_within_both_budgets(monkeypatch):
    monkeypatch.setattr(batches, "TOKEN_BUDGET", 50)
    monkeypatch.setattr(batches, "CACHE_BUDGET", 80)
    sizes = drawn(40, 30) | {40: RowSize(70, 90)}
    groups = cheapest_batches(sizes)
    assert sorted(row for group in groups for row in group) == sorted(sizes)
    assert [40] in groups and len(groups) < len(sizes)
    for group in groups:
        tokens, columns = (max(getattr(sizes[row], key) for row in group) for key in ("tokens", "columns"))
        assert len(group) == 1 or (len(group) * tokens <= 50 and len(group) * columns <= 80)


@pytest.mark.parametrize("n_passes", [1, 3])
def test_no_other_cut_of_the_sorted_rows_costs_less(n_passes):
    sizes = drawn(9, 60)
    rows = sorted(sizes, key=lambda row: sizes[row], reverse=True)

    def cost(groups) -> int:
        return sum(n_passes * batches.PASS_TOKENS + len(b) * max(sizes[row].tokens for row in b) for b in groups)

    every = [
        [rows[a:b] for a, b in zip((0, *cuts), (*cuts, len(rows)), strict=True)]
        for n in range(len(rows))
        for cuts in combinations(range(1, len(rows)), n)
    ]
    chosen = cheapest_batches(sizes, n_passes=n_passes)
    assert cost(chosen) == min(map(cost, every)) and 1 < len(chosen) < len(rows)


def test_without_padding_only_rows_of_one_length_stand_together():
    sizes = {row: RowSize(3 + row % 3, 9) for row in range(12)}
    groups = cheapest_batches(sizes, padding=False)
    assert sorted(map(len, groups)) == [4, 4, 4]
    assert all(len({sizes[row].tokens for row in group}) == 1 for group in groups)


def test_no_rows_are_no_batches():
    assert cheapest_batches({}) == []
