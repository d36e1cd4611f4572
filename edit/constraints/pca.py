"""PCA writes only the top principal directions of each update: RECT's control (Gu et al., EMNLP 2024, "PCA 40%").

    ΔW = U S Vᵀ   →   U_k S_k V_kᵀ,   k = round(keep · min(D, F)), at least 1

`keep` counts components; it is not a share of variance.  The published code (JasonForJoy/Model-Editing-Hurt,
easyeditor/models/rome/rome_main.py) takes 320 of GPT-2 XL's 1600, 20 %; what the paper's text says could not be read.
A change whose rank is at most k is written whole, so that on ROME's rank-one update, and on a MEMIT batch of at most k
facts, this constraint does nothing.  The paper reports RECT to edit better than PCA, which could not be if PCA left the
update whole.  Its code says why, if what stands there (in a string, so that it never runs) is what was run: it centres
the update's columns and writes the *coordinates* along the 320 components into the first 320 of the 1600 output
dimensions, without turning them back: another matrix altogether.  That is not repeated here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from afteredit.edit.constraint import Unconstrained
from afteredit.edit.constraints.kept_entries import check_share
from afteredit.edit.update import Change, LowRank, Update

if TYPE_CHECKING:
    from afteredit.edit.constraint import Weights


@dataclass(frozen=True)
class Pca(Unconstrained):
    keep: float = 0.4  # share of the min(D, F) components

    def __post_init__(self) -> None:
        check_share(self.keep)

    def constrain(self, update: Update, W_now: Weights, W_base: Weights) -> Update:
        return replace(update, changes={name: self._part(change) for name, change in update.changes.items()})

    def _part(self, change: Change) -> Change:
        if isinstance(change, LowRank):
            size = min(len(change.left_Dr), len(change.right_Fr))
            rank = min(size, change.left_Dr.shape[1])
        else:
            size = rank = min(change.dense().shape)
        k = max(1, round(self.keep * size))
        return change if rank <= k else truncated(change, k)


def truncated(change: Change, k: int) -> LowRank:
    """Returns the rank-k matrix nearest to the change, float64; factors are decomposed without their D × F product."""
    import torch

    if not isinstance(change, LowRank):
        U_DK, S_K, Vt_KF = torch.linalg.svd(change.dense(), full_matrices=False)
        return LowRank(U_DK[:, :k] * S_K[:k], Vt_KF[:k].T)
    basis_Dr, left_rr = torch.linalg.qr(change.left_Dr.double())
    basis_Fr, right_rr = torch.linalg.qr(change.right_Fr.double())
    U_rr, S_r, Vt_rr = torch.linalg.svd(left_rr @ right_rr.T, full_matrices=False)
    return LowRank(basis_Dr @ (U_rr[:, :k] * S_r[:k]), basis_Fr @ Vt_rr[:k].T)
