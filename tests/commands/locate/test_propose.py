"""Roles of tokens, averages with their bands, and the two rules that propose blocks."""

from __future__ import annotations

import numpy as np
import pytest

from afteredit.commands.locate.known_facts import KnownFact
from afteredit.commands.locate.propose import averages, by_role, proposed

FIRST, MIDDLE, LAST = "first subject token", "middle subject tokens", "last subject token"


@pytest.mark.parametrize(("n_ids", "first", "last", "roles"), [
    (8, 1, 4, [FIRST, MIDDLE, MIDDLE, LAST, "first subsequent token", "further tokens", "last token"]),
    (4, 0, 0, [LAST, "first subsequent token", "further tokens", "last token"]),
    (3, 0, 1, [FIRST, LAST, "last token"]),
    (3, 1, 2, [FIRST, LAST]),
])  # fmt: skip
def test_each_token_from_the_subject_on_has_one_role(n_ids, first, last, roles):
    assert KnownFact("f", tuple(range(n_ids)), first, last, answer=0).roles == roles


def test_a_roles_effect_in_a_fact_is_the_mean_over_its_tokens():
    roles = [FIRST, MIDDLE, MIDDLE, LAST]
    effects = by_role({"mlp": [[1, 0], [2, 0], [4, 6], [8, 1]]}, roles)
    assert effects == {"mlp": {FIRST: [1, 0], MIDDLE: [3, 3], LAST: [8, 1]}}


def test_averages_are_over_the_facts_that_have_the_role_with_bands_of_the_bootstrap():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(40, 2))
    facts = [{"mlp": {LAST: row.tolist(), **({FIRST: [5.0, 7.0]} if i < 10 else {})}} for i, row in enumerate(values)]
    found = averages(facts)["mlp"]
    assert found[FIRST] == {"facts": 10, "mean": [5, 7], "low": [5, 7], "high": [5, 7]}
    assert found[LAST]["facts"] == 40 and found[LAST]["mean"] == pytest.approx(values.mean(0))
    half = 1.96 * values.std(0, ddof=1) / 40**0.5  # what the central limit theorem says
    assert np.array(found[LAST]["high"]) - values.mean(0) == pytest.approx(half, rel=0.12)
    assert values.mean(0) - np.array(found[LAST]["low"]) == pytest.approx(half, rel=0.12)


@pytest.mark.parametrize(("mean", "layer", "layers"), [
    ([0, 1, 2, 9, 3, 2, 1, 0, 8, 99], 3, [1, 2, 3, 4, 5]),  # the last block is never proposed
    ([5, 0, 0, 0, 0, 4, 4, 4, 4, 4, 0], 0, [5, 6, 7, 8, 9]),
    ([1, 3, 3, 9], 1, [0, 1, 2]),  # a shallow model; of equals the lowest
])  # fmt: skip
def test_the_peak_is_proposed_for_rome_and_the_best_five_in_a_row_for_memit(mean, layer, layers):
    found = proposed({"mlp": {LAST: {"mean": mean}}})
    assert found == {"rome.layer": layer, "memit.layers": layers}
