"""Tests that PRUNE is a view by the published formula and leaves the raw weights unchanged."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from afteredit.edit.constraint import Unconstrained
from afteredit.edit.constraints.prune import Prune
from afteredit.edit.update import LowRank, Update
from afteredit.store.errors import BadInput
from afteredit.tests.tiny.small_changes import NAME, D, F, draw, low_rank


def with_spectrum(values) -> torch.Tensor:
    """Returns a (D, F) float64 matrix with these singular values."""
    U_DD, V_FF = torch.linalg.qr(draw(D, D, seed=11).double()).Q, torch.linalg.qr(draw(F, F, seed=12).double()).Q
    return (U_DD * torch.tensor(values, dtype=torch.float64)) @ V_FF[:, :D].T


@pytest.mark.parametrize("base", [1.2, 2, np.e])
def test_prune_restrains_the_accumulated_change_by_the_published_formula(base):
    W_base_DF = 3 * draw(D, F, seed=7).double()
    m = np.linalg.norm(W_base_DF.numpy(), ord=2)
    spectrum = np.array([40 * m, 5 * m, 1.001 * m, 0.999 * m, 0.5 * m, 0.0])
    expected = [np.log(s) / np.log(base) - np.log(m) / np.log(base) + m if s > m else s for s in spectrum]
    assert m * np.log(base) > 1
    W_DF = W_base_DF + with_spectrum(spectrum)
    view_DF = Prune(base=float(base)).view(W_base_DF, W_DF)
    U, S, Vt = np.linalg.svd((W_DF - W_base_DF).numpy(), full_matrices=False)
    assert_close(view_DF, W_base_DF + torch.from_numpy((U * expected) @ Vt), rtol=0, atol=1e-11)
    found = np.linalg.svd((view_DF - W_base_DF).numpy(), compute_uv=False)
    np.testing.assert_allclose(found, expected, atol=1e-11)
    assert found[0] <= m + np.log(S[0] / m) / np.log(base) + 1e-11 < S[0]


def test_prune_is_a_view_the_raw_weights_and_the_next_update_stay():
    W_base_DF = draw(D, F, seed=7)
    W_DF = W_base_DF + 30 * draw(D, F, seed=8)
    base_before, before = W_base_DF.clone(), W_DF.clone()
    view_DF = Prune().view(W_base_DF, W_DF)
    assert view_DF.dtype == torch.float32
    assert float((view_DF - W_base_DF).norm()) < 0.5 * float((W_DF - W_base_DF).norm())
    assert torch.equal(W_DF, before)
    assert torch.equal(W_base_DF, base_before)
    update = Update({NAME: low_rank()})
    assert Prune().constrain(update, {}.get, {}.get) is update


def test_prune_shows_the_weights_themselves_where_nothing_is_above():
    W_base_DF = with_spectrum([3.0, 2, 2, 1, 1, 0]).float()
    W_DF = W_base_DF + with_spectrum([2.99, 2.9, 1, 1, 0, 0]).float()
    assert Prune().view(W_base_DF, W_DF) is W_DF
    assert Prune().view(W_base_DF, W_base_DF) is W_base_DF
    assert Unconstrained().view(W_base_DF, W_DF) is W_DF


def test_prune_warns_where_the_published_formula_enlarges(caplog):
    W_base_DF = with_spectrum([0.5, 0.1, 0, 0, 0, 0])
    W_DF = W_base_DF + with_spectrum([0.6, 0, 0, 0, 0, 0])
    with caplog.at_level(logging.WARNING):
        view_DF = Prune().view(W_base_DF, W_DF)
    assert float(torch.linalg.matrix_norm(view_DF - W_base_DF, ord=2)) == pytest.approx(0.5 + np.log(0.6 / 0.5))
    assert "constraint.base=2.718" in caplog.text
    assert "e^2" in caplog.text
    caplog.clear()
    Prune(base=8).view(W_base_DF, W_DF)  # e² is 7.39
    assert not caplog.text


@pytest.mark.parametrize("base", [1, 0.5, -2, np.inf, np.nan])
def test_a_base_that_makes_no_sense_is_refused_by_its_key(base):
    with pytest.raises(BadInput, match=f"^constraint.base={base}; it must be"):
        Prune(base=base)


def test_the_view_of_a_real_edit_can_stand_in_the_model_and_be_taken_out_again(rome_update):
    lm, name, update = rome_update
    (change,) = update.changes.values()
    lm.weights.add({name: LowRank(1000 * change.left_Dr, change.right_Fr)})
    raw = lm.weights.copies()
    view_DF = Prune().view(lm.weights.W_base(name), lm.weights.W(name))
    assert torch.equal(lm.weights.W(name), raw[name])
    (S_raw, S_view) = (
        np.linalg.svd((W - lm.weights.W_base(name)).double().numpy(), compute_uv=False) for W in (raw[name], view_DF)
    )
    m = np.linalg.norm(lm.weights.W_base(name).double().numpy(), ord=2)
    assert S_raw[0] > m
    assert S_view[0] == pytest.approx(m + np.log(S_raw[0] / m), rel=1e-5)
    lm.weights.put_back({name: view_DF})
    assert torch.equal(lm.weights.W(name), view_DF)
    lm.weights.put_back(raw)
    assert torch.equal(lm.weights.W(name), raw[name])
