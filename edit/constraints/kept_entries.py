"""Shared by the constraints that write a part of an update and drop the rest: rect, random_entries, pca."""

from __future__ import annotations

from typing import TYPE_CHECKING

from afteredit.edit.update import Dense
from afteredit.store.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor


def check_share(keep: float) -> None:
    """Raises BadInput where `keep` is not a share above 0 and at most 1."""
    if not 0 < keep <= 1:
        raise BadInput(f"constraint.keep={keep}; it must be above 0 and at most 1 (0.4 keeps 40 %); for updates as the "
                       "method gives them use constraint=none")  # fmt: skip


def only(delta_DF: Tensor, positions_N: Tensor) -> Dense:
    """Returns ΔW at the `positions` (N,) and zero elsewhere; positions count row after row of (D, F)."""
    import torch

    flat_N = delta_DF.reshape(-1)
    part_N = torch.zeros_like(flat_N)
    part_N[positions_N] = flat_N[positions_N]
    return Dense(part_N.reshape(delta_DF.shape))
