"""Finds the low-rank factors of what edits changed: those that were written, side by side, or the nearest of a rank."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from afteredit.edit.constraint import Constraint, Unconstrained
from afteredit.edit.update import LowRank, Update
from afteredit.model.weights import Weights
from afteredit.store.errors import BadInput


@dataclass(frozen=True)
class Factors:
    """Holds the change left (D, r) @ right (r, F) of one matrix, float32, and its relative error: the Frobenius norm of
    what is missing, as a share of the whole change's."""

    left_Dr: torch.Tensor
    right_rF: torch.Tensor
    error: float

    @property
    def rank(self) -> int:
        return len(self.right_rF)


def factors_of(
    weights: Weights, constraint: Constraint, updates: Sequence[Update], rank: int | None
) -> Iterator[tuple[str, Factors]]:
    """Yields the name and the factors of every matrix that the `updates` changed, as the constraint's view has it.

    By default the factors of the updates stand side by side; with a `rank`, the singular values beyond it are left out.
    Raises BadInput where no `rank` is given and the change is no sum of factors.
    """
    plain = type(constraint).constrain is Unconstrained.constrain and type(constraint).view is Unconstrained.view
    for name, W_base_DF in weights.base.items():
        delta_DF = constraint.view(W_base_DF, weights.W(name)).double() - W_base_DF.double()
        norm = float(delta_DF.norm())
        if norm == 0:
            continue
        changes = [update.changes[name] for update in updates if name in update.changes]
        low_rank = [change for change in changes if isinstance(change, LowRank)]
        if plain and len(low_rank) == len(changes):
            left_Dr = torch.cat([change.left_Dr for change in low_rank], 1).to(delta_DF)
            right_rF = torch.cat([change.right_Fr for change in low_rank], 1).T.to(delta_DF)
            most = min(len(right_rF), *delta_DF.shape)
            if (rank or most) < len(right_rF):
                left_Dr, right_rF = _nearest(left_Dr, right_rF, rank or most)
        elif rank is None:
            raise BadInput(f"what changed in {name} is no sum of factors (a constraint, or a method that changes whole "
                           "matrices), so an adapter holds a part of it; give replay.rank=<its rank>, and the error is "
                           "stated, or export the whole model")  # fmt: skip
        else:
            left_Dr, right_rF = _nearest(delta_DF, None, rank)
        left_Dr, right_rF = left_Dr.float().cpu().contiguous(), right_rF.float().cpu().contiguous()
        missing_DF = delta_DF.cpu() - left_Dr.double() @ right_rF.double()
        yield name, Factors(left_Dr, right_rF, float(missing_DF.norm()) / norm)


def _nearest(left: torch.Tensor, right_rF: torch.Tensor | None, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the factors (D, rank) and (rank, F) that are nearest to left (D, r) @ right (r, F), or to left (D, F), in
    the Frobenius norm: its largest singular values.  Factors make no D × F matrix."""
    if right_rF is None:
        U, S, Vh = torch.linalg.svd(left, full_matrices=False)
    else:
        Q_left, R_left = torch.linalg.qr(left)
        Q_right, R_right = torch.linalg.qr(right_rF.T)
        U, S, Vh = torch.linalg.svd(R_left @ R_right.T, full_matrices=False)
        U, Vh = Q_left @ U, Vh @ Q_right.T
    root = S[:rank].sqrt()
    return U[:, :rank] * root, root[:, None] * Vh[:rank]
