"""SPHERE weakens the part of each update that lies along the main directions of W's rows (PlusLabNLP, ICLR 2026).

    Ŵ = W, each row at length 1;   A = Ŵᵀ Ŵ / D = Σ λ_i u_i u_iᵀ;   U = [u_1 … u_r], r = 1 + the number of leading
    eigenvalues that together hold at most `energy` of their sum;   ΔW   →   ΔW (I − strength · U Uᵀ)

β of the paper is `energy`, α is `strength`.  W is the matrix as it stands before this update.  Only inputs are
projected: of a low-rank update the right factor changes, and its rank stays what it was.
Departures from the published code (PlusLabNLP/SPHERE, memit/memit_main.py, read at 8b5fa8f): it takes the rows of the
stored matrix, which for GPT-2's are inputs, here every model gets Llama's rule (D, F), rows are outputs; rows of zeros
stay zeros, where it adds 1e-8 to every length; in float64, by the eigenvectors of the smaller of ŴᵀŴ and ŴŴᵀ, which
have the same eigenvalues other than 0.  Its AlphaEdit (AlphaEdit_main.py) projects each block before it reads the keys
of the next; here the finished update is projected, as there for MEMIT.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from afteredit.edit.constraint import Unconstrained
from afteredit.edit.update import Change, Dense, LowRank, Update
from afteredit.store.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

    from afteredit.edit.constraint import Weights


@dataclass(frozen=True)
class Sphere(Unconstrained):
    energy: float = 0.5  # β: the share of the eigenvalues' sum that the main directions hold
    strength: float = 0.8  # α: the share of ΔW's part along them that is taken away

    def __post_init__(self) -> None:
        if not 0 < self.energy < 1:
            raise BadInput(f"constraint.energy={self.energy}; it must be above 0 and below 1 (published: 0.5)")
        if not 0 < self.strength <= 1:
            raise BadInput(f"constraint.strength={self.strength}; it must be above 0 and at most 1 (published: 0.5 "
                           "with AlphaEdit, 0.8 with MEMIT); for updates as the method gives them use "
                           "constraint=none")  # fmt: skip

    def constrain(self, update: Update, W_now: Weights, W_base: Weights) -> Update:
        changes = {name: self._part(change, W_now(name)) for name, change in update.changes.items()}
        return replace(update, changes=changes)

    def _part(self, change: Change, W_DF: Tensor) -> Change:
        main_Fr = main_directions(W_DF, self.energy)
        if isinstance(change, LowRank):
            right_Fr = change.right_Fr.double()
            main_Fr = main_Fr.to(right_Fr.device)
            return LowRank(change.left_Dr, right_Fr - self.strength * (main_Fr @ (main_Fr.T @ right_Fr)))
        delta_DF = change.dense()
        main_Fr = main_Fr.to(delta_DF.device)
        return Dense(delta_DF - self.strength * ((delta_DF @ main_Fr) @ main_Fr.T))


def main_directions(W_DF: Tensor, energy: float) -> Tensor:
    """Returns U (F, r), orthonormal, float64: the leading eigenvectors of ŴᵀŴ up to that share of their eigenvalues."""
    import torch

    rows_DF = torch.nn.functional.normalize(W_DF.double(), dim=1)
    outputs_first = rows_DF.shape[0] < rows_DF.shape[1]
    values_N, vectors_NN = torch.linalg.eigh(rows_DF @ rows_DF.T if outputs_first else rows_DF.T @ rows_DF)
    shares_N = values_N.clamp(min=0).flip(0).cumsum(0) / values_N.clamp(min=0).sum()
    r = min(int((shares_N <= energy).sum()) + 1, len(values_N))
    leading_Nr = vectors_NN[:, -r:]
    return torch.nn.functional.normalize(rows_DF.T @ leading_Nr, dim=0) if outputs_first else leading_Nr
