"""Tests that PCA is the truncated singular value decomposition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from afteredit.edit.constraints.pca import Pca
from afteredit.edit.update import Dense, LowRank
from afteredit.store.errors import BadInput
from afteredit.tests.tiny.small_changes import D, F, constrained, draw, low_rank, written_by


@pytest.mark.parametrize("keep", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("change", [low_rank(rank=5), low_rank(rank=8), Dense(draw(D, F))], ids=["5", "8", "dense"])
def test_pca_is_the_truncated_svd(change, keep):
    """Rank 8 is above D = 6, the largest rank that the matrix can have."""
    result = constrained(Pca(keep=keep), change)
    U, S, Vt = np.linalg.svd(change.dense().numpy(), full_matrices=False)
    k = round(keep * D)
    assert 0 < k < 5
    assert isinstance(result, LowRank)
    assert result.left_Dr.shape == (D, k)
    assert result.right_Fr.shape == (F, k)
    assert_close(result.dense(), torch.from_numpy((U[:, :k] * S[:k]) @ Vt[:k]), rtol=0, atol=1e-12)


def test_pca_leaves_a_rank_one_update_and_whatever_it_need_not_cut_exactly_as_it_is():
    for change, keep in ((low_rank(1), 0.01), (low_rank(2), 0.4), (low_rank(8), 1.0), (Dense(draw(D, F)), 1.0)):
        assert constrained(Pca(keep=keep), change) is change


@pytest.mark.parametrize("keep", [0.04, 0.4])
def test_pca_keeps_every_matrix_to_its_own_first_components(real, keep):
    k = {0.04: 1, 0.4: 13}[keep]  # of 32
    cut = False
    for name, written_DF in written_by(Pca(keep=keep), real).items():
        whole_DF = real.whole[name]
        U, S, Vt = np.linalg.svd(whole_DF, full_matrices=False)
        np.testing.assert_allclose(written_DF, (U[:, :k] * S[:k]) @ Vt[:k], rtol=0, atol=1e-6 * S[0])
        rank = np.linalg.matrix_rank(whole_DF, tol=1e-6 * S[0])
        assert np.linalg.matrix_rank(written_DF, tol=1e-6 * S[0]) == min(k, rank)
        cut |= rank > k
        assert np.array_equal(written_DF, whole_DF) == (rank <= k)
    assert cut or (keep == 0.4 and rank == 2)  # two facts of MEMIT


@pytest.mark.parametrize("keep", [0, -0.1, 1.01, np.nan])
def test_a_share_that_makes_no_sense_is_refused_by_its_key(keep):
    with pytest.raises(BadInput, match=f"^constraint.keep={keep}; it must be"):
        Pca(keep=keep)


def test_pca_writes_a_real_rome_update_whole(rome_update):
    lm, name, update = rome_update
    assert Pca(keep=0.4).constrain(update, lm.weights.W, lm.weights.W_base).changes[name] is update.changes[name]
