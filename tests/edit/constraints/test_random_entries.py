"""Tests that an exact share of random entries is kept, drawn separately for every update and matrix."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from afteredit.edit.constraints.random_entries import RandomEntries
from afteredit.edit.update import Dense, Update
from afteredit.launch.command_line import compose
from afteredit.store.errors import BadInput
from afteredit.tests.tiny.small_changes import D, F, constrained, draw, nonzero, written_by


@pytest.mark.parametrize("keep", [0.2, 0.4, 1.0])
def test_random_keeps_exactly_its_share_unchanged(keep):
    change = Dense(draw(D, F))
    result = constrained(RandomEntries(keep=keep), change)
    assert int(nonzero(result).sum()) == round(keep * D * F)
    assert torch.equal(result.dense(), torch.where(nonzero(result), change.dense(), 0))


def test_random_draws_another_mask_for_another_update_seed_or_matrix():
    change = Dense(draw(D, F))
    mask = nonzero(constrained(RandomEntries(seed=1), change))
    assert torch.equal(mask, nonzero(constrained(RandomEntries(seed=1), change)))
    assert not torch.equal(mask, nonzero(constrained(RandomEntries(seed=2), change)))
    assert not torch.equal(mask, nonzero(constrained(RandomEntries(seed=1), Dense(change.delta_DF + 1e-6))))
    both = RandomEntries(seed=1).constrain(Update({"a": change, "b": change}), {}.get, {}.get)
    assert not torch.equal(nonzero(both.changes["a"]), nonzero(both.changes["b"]))


def test_random_prefers_no_place_and_no_neighbours():
    """Over 400 updates each entry is kept 40 % of the time, and two neighbours as often as by chance."""
    masks = torch.stack(
        [nonzero(constrained(RandomEntries(), Dense(draw(D, F, seed=seed)))).reshape(-1) for seed in range(400)]
    )
    assert float((masks.double().mean(0) - 0.4).abs().max()) < 0.12  # five standard errors
    count, size = round(0.4 * D * F), D * F
    together = float((masks[:, 1:] & masks[:, :-1]).double().mean())
    assert together == pytest.approx(count / size * (count - 1) / (size - 1), abs=0.02)


def test_random_reads_half_precision_updates_too():
    change = Dense(draw(D, F).bfloat16())
    assert int(nonzero(constrained(RandomEntries(), change)).sum()) == round(0.4 * D * F)


def test_random_draws_a_mask_for_every_matrix(real):
    masks = []
    for name, written_DF in written_by(RandomEntries(keep=0.4), real).items():
        whole_DF = real.whole[name]
        assert whole_DF.all()
        masks.append(written_DF != 0)
        assert masks[-1].sum() == round(0.4 * whole_DF.size)
        assert np.array_equal(written_DF[masks[-1]], whole_DF[masks[-1]])
    assert not any(np.array_equal(masks[0], mask) for mask in masks[1:])


@pytest.mark.parametrize("keep", [0, -0.1, 1.01, np.nan])
def test_a_share_that_makes_no_sense_is_refused_by_its_key(keep):
    with pytest.raises(BadInput, match=f"^constraint.keep={keep}; it must be"):
        RandomEntries(keep=keep)


def test_random_draws_with_the_runs_seed():
    assert compose(["constraint=random", "seed=3"]).constraint == RandomEntries(keep=0.4, seed=3)


def test_random_leaves_the_rest_of_a_real_edits_matrix_as_it_was(rome_update):
    lm, name, update = rome_update
    W_before_DF, whole_DF = lm.weights.W(name).clone(), update.changes[name].dense()
    update = RandomEntries(keep=0.4).constrain(update, lm.weights.W, lm.weights.W_base)
    lm.weights.add(update.changes)
    dropped_DF = (update.changes[name].dense() == 0) & (whole_DF != 0)
    assert int(dropped_DF.sum()) == whole_DF.numel() - round(0.4 * whole_DF.numel())
    assert torch.equal(lm.weights.W(name)[dropped_DF], W_before_DF[dropped_DF])
