"""Tests that RECT keeps the entries that a slow sort keeps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from afteredit.edit.constraints.rect import Rect
from afteredit.edit.update import Dense
from afteredit.launch.command_line import compose
from afteredit.store.errors import BadInput
from afteredit.tests.tiny.small_changes import D, F, constrained, draw, low_rank, nonzero, written_by


def slow_rect(delta, W, keep, eps) -> np.ndarray:
    """Returns the mask found by sorting all entries in plain Python, equal ones in order of position."""
    entries = [(abs(delta[i, j]) / (abs(W[i, j]) + eps), -(i * delta.shape[1] + j)) for i, j in np.ndindex(delta.shape)]
    mask = np.zeros(delta.shape, dtype=bool)
    for _, minus_position in sorted(entries, reverse=True)[: round(keep * delta.size)]:
        mask[divmod(-minus_position, delta.shape[1])] = True
    return mask


@pytest.mark.parametrize("keep", [0.001, 0.01, 0.2, 0.4, 0.6, 0.8, 1.0])
@pytest.mark.parametrize("change", [low_rank(rank=2), Dense(draw(D, F))], ids=["low rank", "dense"])
def test_rect_keeps_exactly_what_a_slow_sort_keeps(change, keep):
    W_DF = draw(D, F, seed=7)
    result = constrained(Rect(keep=keep), change, W_DF)
    mask = slow_rect(change.dense().numpy(), W_DF.double().numpy(), keep, 1e-8)
    assert mask.sum() == round(keep * D * F)
    assert np.array_equal(result.dense().numpy(), np.where(mask, change.dense().numpy(), 0))


@pytest.mark.parametrize("keep", [0.1, 0.37, 0.5, 0.9])
def test_rect_breaks_ties_by_position_however_the_matrix_is_stored(keep):
    """There are few values, so most ratios are equal; some weights are 0.  The second change is a transposed view."""
    generator = torch.Generator().manual_seed(3)
    delta_DF = torch.randint(-1, 2, (D, F), generator=generator).float()
    W_DF = torch.randint(-1, 2, (D, F), generator=generator).float()
    mask = slow_rect(delta_DF.double().numpy(), W_DF.double().numpy(), keep, 0.5)
    expected = torch.from_numpy(np.where(mask, delta_DF.double().numpy(), 0))
    for change, W in ((delta_DF, W_DF), (delta_DF.T.contiguous().T, W_DF.T.contiguous().T)):
        assert torch.equal(constrained(Rect(keep=keep, eps=0.5), Dense(change), W).dense(), expected)


def test_rect_ranks_by_the_weights_before_this_update_and_not_by_the_unedited_ones():
    delta_DF, W_DF = torch.ones(1, 4), torch.tensor([[8.0, 4.0, 2.0, 1.0]])
    result = constrained(Rect(keep=0.5), Dense(delta_DF), W_DF, W_base_DF=W_DF.flip(1))
    assert torch.equal(nonzero(result), torch.tensor([[False, False, True, True]]))


def test_rect_takes_a_change_to_a_zero_weight_before_any_other():
    delta_DF, W_DF = torch.tensor([[5.0, 1e-3, 5.0, 5.0]]), torch.tensor([[1.0, 0.0, 1.0, 1.0]])
    result = constrained(Rect(keep=0.25), Dense(delta_DF), W_DF)
    assert torch.equal(nonzero(result), torch.tensor([[False, True, False, False]]))
    assert result.dense().isfinite().all()


@pytest.mark.parametrize("keep", [0.05, 0.4])
def test_rect_ranks_every_matrix_by_itself(real, keep):
    for name, written_DF in written_by(Rect(keep=keep), real).items():
        whole_DF = real.whole[name]
        relative_DF = np.abs(whole_DF) / (np.abs(real.W[name]) + 1e-8)
        best_N = np.argsort(-relative_DF, axis=None, kind="stable")[: round(keep * whole_DF.size)]
        expected_DF = np.zeros_like(whole_DF)
        expected_DF.flat[best_N] = whole_DF.flat[best_N]
        assert np.array_equal(written_DF, expected_DF)
        assert np.count_nonzero(written_DF) == round(keep * whole_DF.size)
        assert relative_DF[written_DF != 0].min() >= relative_DF[written_DF == 0].max()


@pytest.mark.parametrize("keep", [0, -0.1, 1.01, np.nan])
def test_a_share_that_makes_no_sense_is_refused_by_its_key(keep):
    with pytest.raises(BadInput, match=f"^constraint.keep={keep}; it must be"):
        Rect(keep=keep)


@pytest.mark.parametrize("eps", [0, -1e-8, np.inf, np.nan])
def test_an_eps_that_makes_no_sense_is_refused_by_its_key(eps):
    with pytest.raises(BadInput, match=f"^constraint.eps={eps}; it must be"):
        Rect(eps=eps)


def test_the_command_line_wins_and_is_checked_before_anything_is_loaded():
    assert compose(["constraint=rect", "constraint.keep=0.2"]).constraint == Rect(keep=0.2, eps=1e-8)
    with pytest.raises(BadInput, match=r"^constraint\.keep=40"):
        compose(["constraint=rect", "constraint.keep=40"])


def test_rect_leaves_the_rest_of_a_real_edits_matrix_as_it_was(rome_update):
    lm, name, update = rome_update
    W_before_DF, whole_DF = lm.weights.W(name).clone(), update.changes[name].dense()
    update = Rect(keep=0.4).constrain(update, lm.weights.W, lm.weights.W_base)
    lm.weights.add(update.changes)
    dropped_DF = (update.changes[name].dense() == 0) & (whole_DF != 0)
    assert int(dropped_DF.sum()) == whole_DF.numel() - round(0.4 * whole_DF.numel())
    assert torch.equal(lm.weights.W(name)[dropped_DF], W_before_DF[dropped_DF])
    relative_DF = whole_DF.abs() / (W_before_DF.double().abs() + 1e-8)
    assert relative_DF[~dropped_DF].min() >= relative_DF[dropped_DF].max()
