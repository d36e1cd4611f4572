"""Writes what the published code makes of an update's principal components: RECT's control as it was probably run.

    X = ΔWᵀ (F, D), less each column's mean;   X = U S Vᵀ;   T = U_k S_k (F, k);   the first k rows of ΔW become Tᵀ, the
    others 0,   k = round(keep · D), at least 1

(Gu et al., EMNLP 2024; JasonForJoy/Model-Editing-Hurt, easyeditor/models/rome/rome_main.py, where it stands in a
string.)  T holds coordinates along the components; turned back by V_k they would give ΔW again, nearly: they are not
turned back, so that what was meant for D output dimensions is written to the first k.  A rank-one update u vᵀ becomes
±|u| (v − v̄)ᵀ in the first row.  This, not PCA, explains that "PCA 40%" edits worst of all in the paper's figure; as it
should be: constraint=pca.
Departures: the published code takes 320 of GPT-2 XL's 1600 components, keep=0.2, where the figure says 40 %; components
are exact, where scikit-learn's are found by random projection; a column's entry of largest magnitude is positive, as
in scikit-learn before 1.5.  On models that store their matrices as (D, F), Llama's, the published code would take
outputs for samples; here every model gets GPT-2's rule.
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
class PcaPublished(Unconstrained):
    keep: float = 0.4  # share of the D components

    def __post_init__(self) -> None:
        check_share(self.keep)

    def constrain(self, update: Update, W_now: Weights, W_base: Weights) -> Update:
        return replace(update, changes={name: coordinates(c, self.keep) for name, c in update.changes.items()})


def coordinates(change: Change, keep: float) -> LowRank:
    """Returns the change whose first rows are the coordinates of ΔW's centred inputs, float64."""
    import torch

    if isinstance(change, LowRank):
        left_Dr, right_Fr = change.left_Dr.double(), change.right_Fr.double()
    else:
        dense_DF = change.dense().double()
        left_Dr, right_Fr = torch.eye(len(dense_DF), dtype=dense_DF.dtype, device=dense_DF.device), dense_DF.T
    k = max(1, round(keep * len(left_Dr)))
    basis_Fr, inputs_rr = torch.linalg.qr(right_Fr - right_Fr.mean(dim=0))
    outputs_rr = torch.linalg.qr(left_Dr).R
    U_rr, S_r, _ = torch.linalg.svd(inputs_rr @ outputs_rr.T, full_matrices=False)
    T_Fk = (basis_Fr @ U_rr * S_r)[:, :k]
    largest_k = T_Fk.abs().argmax(dim=0)
    T_Fk = T_Fk * T_Fk.gather(0, largest_k[None]).sign()
    first_Dk = torch.eye(len(left_Dr), T_Fk.shape[1], dtype=T_Fk.dtype, device=T_Fk.device)
    return LowRank(first_Dk, T_Fk)
