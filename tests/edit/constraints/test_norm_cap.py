"""Tests that the norm cap bounds every edited matrix, and that a shortened update ends exactly at the bound."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from afteredit.edit.constraints.norm_cap import NormCap, largest_step
from afteredit.edit.update import Dense
from afteredit.store.errors import BadInput
from afteredit.tests.tiny.small_changes import D, F, constrained, draw, low_rank, written_by


@pytest.mark.parametrize("change", [low_rank(rank=2), Dense(draw(D, F))], ids=["low rank", "dense"])
@pytest.mark.parametrize("grown", [0.0, 1.0], ids=["from W0", "from an edited W"])
def test_the_norm_bound_is_met_with_equality_where_it_cuts(change, grown):
    W_base_DF = draw(D, F, seed=7)
    W_DF = W_base_DF + grown * 0.05 * draw(D, F, seed=8)
    result = constrained(NormCap(growth=0.1), change, W_DF, W_base_DF)
    cap = 1.1 * float(W_base_DF.double().norm())
    assert float((W_DF.double() + change.dense()).norm()) > cap > float(W_DF.double().norm())
    assert float((W_DF.double() + result.dense()).norm()) == pytest.approx(cap, rel=1e-12)
    assert type(result) is type(change)
    ratio_DF = result.dense() / change.dense()
    assert 0 < float(ratio_DF.mean()) < 1
    assert_close(ratio_DF, ratio_DF.mean().expand(D, F), rtol=1e-9, atol=0)


def test_an_update_that_first_shortens_the_weights_is_cut_at_the_far_side():
    """W + s ΔW leaves the ball once, after its middle: s is the larger root, not the smaller."""
    W_DF = draw(D, F, seed=7).double()
    result = constrained(NormCap(growth=0), Dense(-3 * W_DF), W_DF)
    assert_close(result.dense(), -2 * W_DF, rtol=1e-12, atol=0)


def test_within_the_bound_the_update_is_the_same_object():
    W_DF = draw(D, F, seed=7)
    small, shrinking, zero = Dense(1e-3 * draw(D, F)), Dense(-0.5 * W_DF), Dense(torch.zeros(D, F))
    for change, growth in ((small, 0.1), (shrinking, 0.0), (zero, 0.0), (low_rank(), 100.0)):
        assert constrained(NormCap(growth=growth), change, W_DF) is change


def test_weights_above_the_bound_already_never_grow():
    W_base_DF = draw(D, F, seed=7).double()
    W_DF = 2 * W_base_DF
    growing, shrinking, through = Dense(W_base_DF), Dense(-0.1 * W_base_DF), Dense(-5 * W_base_DF)
    cap = NormCap(growth=0.1)
    assert not constrained(cap, growing, W_DF, W_base_DF).dense().any()
    assert constrained(cap, shrinking, W_DF, W_base_DF) is shrinking
    assert_close(constrained(cap, through, W_DF, W_base_DF).dense(), -2 * W_DF, rtol=1e-12, atol=0)


def test_a_tiny_room_is_measured_to_the_last_digits():
    """The usual root formula would subtract two nearly equal numbers here and be wrong by a few per cent."""
    W_DF, delta_DF = torch.ones(1, 1, dtype=torch.float64), torch.full((1, 1), 1e3, dtype=torch.float64)
    assert largest_step(W_DF, delta_DF, cap=1 + 2**-50) == pytest.approx(2**-50 / 1e3, rel=1e-12, abs=0)


def test_the_norm_cap_holds_for_every_matrix(real):
    n_cut = 0
    for name, written_DF in written_by(NormCap(growth=0.001), real).items():
        whole_DF, W_DF = real.whole[name], real.W[name]
        cap = 1.001 * np.linalg.norm(real.W_base[name])
        assert np.linalg.norm(W_DF) < cap
        assert np.linalg.norm(W_DF + written_DF) <= cap * (1 + 1e-12)
        if np.linalg.norm(W_DF + whole_DF) <= cap:
            assert np.array_equal(written_DF, whole_DF)
            continue
        n_cut += 1
        s = (written_DF * whole_DF).sum() / (whole_DF**2).sum()
        assert 0 < s < 1
        np.testing.assert_allclose(written_DF, s * whole_DF, rtol=1e-9, atol=0)
        assert np.linalg.norm(W_DF + written_DF) == pytest.approx(cap, rel=1e-12)
        assert np.linalg.norm(W_DF + (s + 1e-4) * whole_DF) > cap
    assert n_cut


@pytest.mark.parametrize("growth", [-0.1, np.inf, np.nan])
def test_a_growth_that_makes_no_sense_is_refused_by_its_key(growth):
    with pytest.raises(BadInput, match=f"^constraint.growth={growth}; it must be"):
        NormCap(growth=growth)


def test_the_norm_cap_cuts_a_real_edit_to_the_cap(rome_update):
    lm, name, update = rome_update
    norm_before = float(lm.weights.W(name).double().norm())
    lm.weights.add(NormCap(growth=1e-4).constrain(update, lm.weights.W, lm.weights.W_base).changes)
    assert float(lm.weights.W(name).double().norm()) == pytest.approx(1.0001 * norm_before, rel=1e-7)
