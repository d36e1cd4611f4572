"""RECT writes only those entries of an update that change W most in relation to W (Gu et al., EMNLP 2024, 2401.04700).

    δ = |ΔW| / (|W| + ε), entry by entry;   the top `keep` share of ΔW by δ stays as it is, the rest becomes 0

W is the matrix as it stands before this update; every matrix is ranked by itself.
Departures from the published code (JasonForJoy/Model-Editing-Hurt, easyeditor/models/rome/rome_main.py), whose RECT
stands in a string, so that it never runs:
- there 80 % of the entries become 0; the paper's figures keep 20, 40, 60 and 80 %, and recommend 40 %;
- its function returns nothing, so that the update would become None; what it does in place is lost wherever flattening
  copies, as it does for weights stored like Llama's;
- it divides by |W| alone; ε (1e-8, as in AlphaEdit's RECT baseline) keeps W = 0 from giving inf or nan;
- exactly round(keep · D · F) entries stay; of equal δ the first in order of rows stays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from afteredit.edit.constraint import Unconstrained
from afteredit.edit.constraints.kept_entries import check_share, only
from afteredit.edit.update import Change, Dense, Update
from afteredit.store.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

    from afteredit.edit.constraint import Weights


@dataclass(frozen=True)
class Rect(Unconstrained):
    keep: float = 0.4  # share of ΔW's entries that are written
    eps: float = 1e-8  # ε

    def __post_init__(self) -> None:
        check_share(self.keep)
        if not (self.eps > 0 and math.isfinite(self.eps)):
            raise BadInput(f"constraint.eps={self.eps}; it must be above 0, since weights may be 0 (1e-8 as published)")

    def constrain(self, update: Update, W_now: Weights, W_base: Weights) -> Update:
        return replace(update, changes={name: self._part(c, W_now(name)) for name, c in update.changes.items()})

    def _part(self, change: Change, W_DF: Tensor) -> Dense:
        delta_DF = change.dense()
        relative_DF = delta_DF.abs() / (W_DF.to(delta_DF.device).double().abs() + self.eps)
        return only(delta_DF, largest(relative_DF.reshape(-1), round(self.keep * delta_DF.numel())))


def largest(scores_N: Tensor, count: int) -> Tensor:
    """Returns the positions of the `count` largest scores, of equal ones the first; selected, since sorting is slow."""
    import torch

    if not count:
        return torch.zeros(0, dtype=torch.long, device=scores_N.device)
    limit = scores_N.kthvalue(len(scores_N) - count + 1).values
    above_N = (scores_N > limit).nonzero()[:, 0]
    at_limit_N = (scores_N == limit).nonzero()[:, 0]
    return torch.cat([above_N, at_limit_N[: count - len(above_N)]])
