"""Batches hold every row once, within the budgets, and no more padding than another pass costs."""

from __future__ import annotations

import random

import pytest

from afteredit.evaluate.inference import batches
from afteredit.evaluate.inference.batches import RowSize, batches_of_like_length


def drawn(n: int, longest: int) -> dict[int, RowSize]:
    rng = random.Random(1)
    return {row: RowSize(tokens := rng.randrange(1, longest), tokens + rng.randrange(20)) for row in range(n)}


def test_batches_hold_every_row_once_within_both_budgets(monkeypatch):
    monkeypatch.setattr(batches, "TOKEN_BUDGET", 50)
    monkeypatch.setattr(batches, "CACHE_BUDGET", 80)
    sizes = drawn(40, 30) | {40: RowSize(70, 90)}
    groups = batches_of_like_length(sizes)
    assert sorted(row for group in groups for row in group) == sorted(sizes)
    assert [40] in groups and len(groups) < len(sizes)
    for group in groups:
        tokens, columns = (max(getattr(sizes[row], key) for row in group) for key in ("tokens", "columns"))
        assert len(group) == 1 or (len(group) * tokens <= 50 and len(group) * columns <= 80)


@pytest.mark.parametrize(("n_passes", "expected"), [(1, [[0, 1], [2, 3]]), (2, [[0, 1, 2, 3]])])
def test_a_row_joins_a_batch_where_its_padding_costs_no_more_than_another_batch(monkeypatch, n_passes, expected):
    monkeypatch.setattr(batches, "PASS_TOKENS", 10)
    sizes = {row: RowSize(tokens, tokens) for row, tokens in enumerate((30, 25, 24, 21))}  # padding: 0, 5, 11, 20
    assert batches_of_like_length(sizes, n_passes=n_passes) == expected


def test_without_padding_only_rows_of_one_length_stand_together():
    sizes = {row: RowSize(3 + row % 3, 9) for row in range(12)}
    groups = batches_of_like_length(sizes, padding=False)
    assert sorted(map(len, groups)) == [4, 4, 4]
    assert all(len({sizes[row].tokens for row in group}) == 1 for group in groups)


def test_no_rows_are_no_batches():
    assert batches_of_like_length({}) == []
