"""Tests SPHERE against NumPy on the whole matrices, and that a low-rank update stays one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from afteredit.edit.constraints.sphere import Sphere, main_directions
from afteredit.edit.update import Dense, LowRank
from afteredit.store.errors import BadInput
from afteredit.tests.tiny.small_changes import D, F, constrained, draw, low_rank, written_by


def published(W: np.ndarray, delta: np.ndarray, energy: float, strength: float) -> np.ndarray:
    """Returns ΔW (I − α U Uᵀ) with U from the eigenvalues of the whole (F, F) matrix, one by one."""
    rows = np.array([row / np.sqrt((row**2).sum()) for row in W.astype(float)])
    values, vectors = np.linalg.eigh(rows.T @ rows / len(rows))
    order = np.argsort(values)[::-1]
    held, chosen = 0.0, []
    for i in order:
        held += values[i]
        chosen.append(i)
        if held / values.sum() > energy:
            break
    U = vectors[:, chosen]
    return delta @ (np.eye(W.shape[1]) - strength * U @ U.T)


@pytest.mark.parametrize("change", [low_rank(rank=3), Dense(draw(D, F))], ids=["low rank", "dense"])
@pytest.mark.parametrize(("energy", "strength"), [(0.5, 0.8), (0.05, 0.5), (0.9, 1.0)])
def test_it_writes_what_the_published_rule_gives(change, energy, strength):
    W_DF = draw(D, F, seed=7)
    result = constrained(Sphere(energy, strength), change, W_DF)
    expected = published(W_DF.numpy(), change.dense().numpy(), energy, strength)
    assert_close(result.dense(), torch.from_numpy(expected), rtol=1e-9, atol=1e-10)
    assert type(result) is type(change)
    assert float((result.dense() - change.dense()).norm()) > 0.05 * change.norm()


def test_a_matrix_with_more_rows_than_columns_gives_the_same_directions():
    W_DF = draw(F, D, seed=7)
    expected = published(W_DF.numpy(), np.eye(D), 0.5, 1.0)
    U_Fr = main_directions(W_DF, 0.5)
    assert_close(torch.eye(D).double() - U_Fr @ U_Fr.T, torch.from_numpy(expected), rtol=1e-9, atol=1e-10)


def test_only_the_right_factor_of_a_low_rank_update_changes():
    change = low_rank(rank=2)
    result = constrained(Sphere(), change)
    assert isinstance(result, LowRank) and result.right_Fr.shape == change.right_Fr.shape
    assert result.left_Dr is change.left_Dr


def test_full_strength_leaves_nothing_along_the_main_directions_and_all_across_them():
    W_DF, change = draw(D, F, seed=7), low_rank(rank=2)
    U_Fr = main_directions(W_DF, 0.5)
    written_DF = constrained(Sphere(strength=1.0), change, W_DF).dense()
    assert float((written_DF @ U_Fr).norm()) < 1e-12 * change.norm()
    across_FF = torch.eye(F).double() - U_Fr @ U_Fr.T
    assert_close(written_DF @ across_FF, change.dense() @ across_FF, rtol=1e-9, atol=1e-10)


def test_a_row_of_zeros_has_no_direction():
    W_DF = draw(D, F, seed=7)
    W_DF[0] = 0
    without_DF = main_directions(W_DF[1:], 0.5)
    U_Fr = main_directions(W_DF, 0.5)
    assert_close(U_Fr @ U_Fr.T, without_DF @ without_DF.T, rtol=1e-9, atol=1e-10)


def test_it_is_taken_from_the_weights_as_they_are_now_for_every_matrix(real):
    for name, written_DF in written_by(Sphere(), real).items():
        expected_DF = published(real.W[name], real.whole[name], 0.5, 0.8)
        np.testing.assert_allclose(written_DF, expected_DF, rtol=0, atol=1e-9 * np.abs(expected_DF).max())


@pytest.mark.parametrize(("key", "value"), [("energy", 0.0), ("energy", 1.0), ("strength", 0.0), ("strength", 1.1)])
def test_a_number_that_makes_no_sense_is_refused_by_its_key(key, value):
    with pytest.raises(BadInput, match=rf"^constraint\.{key}={value}; it must be"):
        Sphere(**{key: value})
