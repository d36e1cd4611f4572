"""Batches: every row once, within the budgets, and no cheaper way to cut the sorted rows."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from afteredit.evaluate.inference import batches as packing
from afteredit.evaluate.inference.batches import Size, packed


def drawn(n: int, longest: int) -> dict[int, Size]:
    rng = random.Random(1)
    return {row: Size(tokens := rng.randrange(1, longest), tokens + rng.randrange(20)) for row in range(n)}


def test_batches_hold_every_row_once_within_both_budgets(monkeypatch):
    monkeypatch.setattr(packing, "TOKEN_BUDGET", 50)
    monkeypatch.setattr(packing, "CACHE_BUDGET", 80)
    sizes = drawn(40, 30) | {40: Size(70, 90)}
    batches = packed(sizes)
    assert sorted(row for batch in batches for row in batch) == sorted(sizes)
    assert [40] in batches and len(batches) < len(sizes)
    for batch in batches:
        tokens, columns = (max(getattr(sizes[row], key) for row in batch) for key in ("tokens", "columns"))
        assert len(batch) == 1 or (len(batch) * tokens <= 50 and len(batch) * columns <= 80)


@pytest.mark.parametrize("n_passes", [1, 3])
def test_no_other_cut_of_the_sorted_rows_costs_less(n_passes):
    sizes = drawn(9, 60)
    rows = sorted(sizes, key=lambda row: sizes[row], reverse=True)

    def cost(batches) -> int:
        return sum(n_passes * packing.PASS_TOKENS + len(b) * max(sizes[row].tokens for row in b) for b in batches)

    every = [
        [rows[a:b] for a, b in zip((0, *cuts), (*cuts, len(rows)), strict=True)]
        for n in range(len(rows))
        for cuts in combinations(range(1, len(rows)), n)
    ]
    chosen = packed(sizes, n_passes=n_passes)
    assert cost(chosen) == min(map(cost, every)) and 1 < len(chosen) < len(rows)


def test_without_padding_only_rows_of_one_length_stand_together():
    sizes = {row: Size(3 + row % 3, 9) for row in range(12)}
    batches = packed(sizes, padded=False)
    assert sorted(map(len, batches)) == [4, 4, 4]
    assert all(len({sizes[row].tokens for row in batch}) == 1 for batch in batches)


def test_no_rows_are_no_batches():
    assert packed({}) == []
