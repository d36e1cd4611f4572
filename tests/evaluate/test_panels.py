"""Tests on which edits retention is measured, and of how many each speaks."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from afteredit.evaluate.panels import panels, stands_for


def test_panels_are_the_first_the_last_and_a_random_hundred_each_once_in_order():
    done = list(range(1000))
    panel = panels(done, seed=0)
    assert panel == sorted(set(panel))
    assert panel[:100] == done[:100] and panel[-100:] == done[-100:]
    middle = [n for n in panel if 100 <= n < 900]
    assert 60 <= len(middle) <= 100  # the random hundred may fall into the other two
    assert panels(done, seed=0) == panel != panels(done, seed=1)


@pytest.mark.parametrize("n", [0, 1, 99, 150])
def test_panels_of_few_edits_are_all_of_them(n):
    assert set(panels(list(range(n)), seed=0)) >= {*range(min(n, 100)), *range(max(0, n - 100), n)}
    assert len(panels(list(range(n)), seed=0)) == n


def made_up(n: int) -> list[SimpleNamespace]:
    return [SimpleNamespace(id=f"f{i}") for i in range(n)]


@pytest.mark.parametrize("n", [1, 150, 200, 300, 1000, 1950])
def test_the_panels_speak_for_all_edits_the_ends_for_themselves(n):
    edits = made_up(n)
    weights = stands_for(edits, seed=0)
    assert list(weights) == [edit.id for edit in panels(edits, seed=0)]
    assert sum(weights.values()) == pytest.approx(n)
    assert all(weights[f"f{i}"] == 1 for i in (*range(min(n, 100)), *range(max(0, n - 100), n)))


def test_a_share_that_falls_with_age_is_estimated_without_bias():
    """Of 1,000 edits the last 300 hold: the panels alone say .45, the estimate .3 on average over seeds."""
    edits, found = made_up(1000), []
    for seed in range(200):
        weights = stands_for(edits, seed)
        found.append(sum(w for name, w in weights.items() if int(name[1:]) >= 700) / sum(weights.values()))
    assert sum(found) / len(found) == pytest.approx(0.3, abs=0.01)


def test_an_edit_between_the_ends_that_none_speaks_for_is_left_to_the_others():
    edits = made_up(201)
    seed = next(seed for seed in range(100) if len(panels(edits, seed)) == 200)
    assert set(stands_for(edits, seed).values()) == {1.0}
