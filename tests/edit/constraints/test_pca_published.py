"""Tests that pca_published is what the published code computes: scikit-learn's steps, spelled out with NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from afteredit.edit.constraints.pca_published import PcaPublished
from afteredit.edit.update import Dense, LowRank
from afteredit.store.errors import BadInput
from afteredit.tests.tiny.small_changes import D, F, constrained, draw, low_rank


def as_published(delta_DF: np.ndarray, k: int) -> np.ndarray:
    """The stored matrix of GPT-2 is ΔWᵀ, inputs by outputs; `fit_transform`'s columns replace its first k."""
    stored_FD = delta_DF.T
    centred_FD = stored_FD - stored_FD.mean(axis=0)
    U, S, _ = np.linalg.svd(centred_FD, full_matrices=False)
    scores_FK = U * S
    for column in range(scores_FK.shape[1]):
        if scores_FK[np.abs(scores_FK[:, column]).argmax(), column] < 0:
            scores_FK[:, column] *= -1
    written_FD = np.zeros_like(stored_FD)
    written_FD[:, :k] = scores_FK[:, :k]
    return written_FD.T


@pytest.mark.parametrize("keep", [0.2, 0.4, 1.0])
@pytest.mark.parametrize("change", [low_rank(1), low_rank(3), low_rank(8), Dense(draw(D, F))])
def test_it_writes_the_coordinates_that_the_published_code_writes(change, keep):
    result = constrained(PcaPublished(keep=keep), change)
    expected = as_published(change.dense().numpy(), k=round(keep * D))
    np.testing.assert_allclose(result.dense().numpy(), expected, rtol=0, atol=1e-12 * np.abs(expected).max() * D * F)


def test_a_rank_one_update_is_turned_into_the_first_output_dimension():
    u_D, v_F = draw(D, 1), draw(F, 1)
    written = constrained(PcaPublished(), LowRank(u_D, v_F)).dense()
    assert torch.equal(written[1:], torch.zeros(D - 1, F, dtype=torch.float64))
    row_F = u_D.norm() * (v_F[:, 0] - v_F.mean())
    np.testing.assert_allclose(written[0].abs().numpy(), row_F.abs().numpy(), rtol=1e-5)


@pytest.mark.parametrize("keep", [0, 1.01, np.nan])
def test_a_share_that_makes_no_sense_is_refused_by_its_key(keep):
    with pytest.raises(BadInput, match=f"^constraint.keep={keep}; it must be"):
        PcaPublished(keep=keep)
