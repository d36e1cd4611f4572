"""PRUNE measures the sum of all edits with its largest singular values restrained (Ma et al., ICLR 2025).

    W − W₀ = U S Vᵀ,   view = W₀ + U f(S) Vᵀ,   m = σ_max(W₀)
    f(σ) = log_α σ − log_α m + m  where σ > m,  else σ

arXiv 2405.16821; f is read off the published code (mjy1111/PRUNE), which offers e, 2, 1.5 and 1.2 for α, here `base`.
The trap: f restrains the *accumulated* change, in the place of that change.  Five public repositories (AlphaEdit, NSE,
NAS, RLSEdit, OTE-SE-Alignment) add the restrained change on top of the edited weight, W + U f(S) Vᵀ: more of the change
instead of less, and only after the last batch.  Here it is a view: metrics at every checkpoint see it, the next edit
reads the raw W, which stays as it is.
The formula restrains only where m ln α ≥ 1; below that, σ just above m become larger.  It is kept as published, and a
warning names the base that would do.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from afteredit.edit.constraint import Unconstrained
from afteredit.store.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prune(Unconstrained):
    base: float = math.e  # α

    def __post_init__(self) -> None:
        if not (self.base > 1 and math.isfinite(self.base)):
            raise BadInput(
                f"constraint.base={self.base}; it must be above 1 (published: 1.2, 1.5, 2, 2.718281828459045)"
            )

    def view(self, W_base_DF: Tensor, W_DF: Tensor) -> Tensor:
        """Returns the view in W's dtype, computed in float64; W itself where no singular value is above σ_max(W₀)."""
        import torch

        W64_DF, base_DF = W_DF.double(), W_base_DF.to(W_DF.device).double()
        U_DK, S_K, Vt_KF = torch.linalg.svd(W64_DF - base_DF, full_matrices=False)
        m = float(torch.linalg.matrix_norm(base_DF, ord=2))
        above = int(S_K.gt(m).sum())  # singular values come in descending order
        if not above:
            return W_DF
        restrained_K = m + (S_K[:above] / m).log() / math.log(self.base)
        if m * math.log(self.base) < 1:
            log.warning("constraint.base=%g enlarges singular values just above σ_max(W0) = %.3g instead of "
                        "restraining them; from e^%.3g on it restrains all", self.base, m, 1 / m)  # fmt: skip
        less_DF = (U_DK[:, :above] * (restrained_K - S_K[:above])) @ Vt_KF[:above]
        return (W64_DF + less_DF).to(W_DF.dtype)
