"""Tests the published table of how far a matrix moved, entry by entry."""

from __future__ import annotations

import pytest
import torch

from afteredit.evaluate.metrics.drift import entries_moved
from afteredit.store.errors import BadInput


def test_distance_and_shares_count_every_entry_by_its_own_size():
    base = [[1.0, -2.0, 0.0, 0.0], [10.0, 4.0, -8.0, 2.0]]
    now = [[1.1, -2.0, 0.5, 0.0], [10.0, 3.0, -8.8, 2.0]]
    distance, past = 0.0, {0.077: 0, 0.171: 0}
    for base_row, now_row in zip(base, now, strict=True):
        for before, after in zip(base_row, now_row, strict=True):
            distance += abs(after - before)
            for share in past:
                past[share] += abs(after - before) > share * abs(before)
    assert past == {0.077: 4, 0.171: 2}
    found = entries_moved(torch.tensor(now), torch.tensor(base), list(past))
    assert found["manhattan"] == pytest.approx(distance, rel=1e-6)
    assert {share: 8 * found[f"moved_{share}"] for share in past} == pytest.approx(past)


def test_shares_of_one_name_are_refused_and_those_that_print_apart_are_not():
    W_DF, base_DF = torch.tensor([[1.15, 1.05]]), torch.ones(1, 2)
    found = entries_moved(W_DF, base_DF, [0.1, 0.100001])
    assert (found["moved_0.1"], found["moved_0.100001"]) == (0.5, 0.5)
    with pytest.raises(BadInput, match="both 0.1 in six digits"):
        entries_moved(W_DF, base_DF, [0.1, 0.10000001])


def test_nothing_is_computed_that_nobody_asked_for():
    assert entries_moved(torch.ones(2, 2), torch.ones(2, 2), []) == {}
