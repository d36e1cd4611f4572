"""Small changes to one matrix, and what a constraint makes of them."""

from __future__ import annotations

import numpy as np
import torch

from afteredit.edit.update import LowRank, Update

D, F = 6, 9
NAME = "w"


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def low_rank(rank: int = 1, seed: int = 0) -> LowRank:
    return LowRank(draw(D, rank, seed=seed), draw(F, rank, seed=seed + 100))


def constrained(constraint, change, W_DF=None, W_base_DF=None):
    """Returns what becomes of an update's only change."""
    W_DF = draw(D, F, seed=7) if W_DF is None else W_DF
    W_base_DF = W_DF if W_base_DF is None else W_base_DF
    update = constraint.constrain(Update({NAME: change}), {NAME: W_DF}.get, {NAME: W_base_DF}.get)
    return update.changes[NAME]


def nonzero(change) -> torch.Tensor:
    return change.dense() != 0


def written_by(constraint, real) -> dict[str, np.ndarray]:
    """Applies what the constraint lets through of `real` and returns it by matrix; checks that nothing else moves."""
    before = {name: parameter.clone() for name, parameter in real.lm.model.named_parameters()}
    result = constraint.constrain(real.update, real.lm.weights.W, real.lm.weights.W_base)
    assert list(result.changes) == list(real.update.changes)
    real.lm.weights.add(result.changes)
    for name, parameter in real.lm.model.named_parameters():
        assert torch.equal(parameter, before[name]) != (name in result.changes), name
    written = {name: change.dense().numpy() for name, change in result.changes.items()}
    for name, written_DF in written.items():
        assert np.array_equal(real.lm.weights.W(name).numpy(), (real.W[name] + written_DF).astype(np.float32))
    return written
