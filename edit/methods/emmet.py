"""EMMET: a batch of facts is written under equality constraints, by ROME's objective (Gupta et al., 2024, 2403.14236).

    Δ_l = R_l (K_lᵀ C_l⁻¹ K_l)⁻¹ K_lᵀ C_l⁻¹,   least E|Δ k|² with Δ K_l = R_l exactly,   C = E[k kᵀ]

What the authors' code (scalable-model-editing/unified-model-editing, emmet/emmet_main.py, read at 2f7c65c) solves is

    Δ_l = R_l (K_lᵀ (w C_l)⁻¹ K_l + d I)⁻¹ K_lᵀ (w C_l)⁻¹ = R_l (K_lᵀ C_l⁻¹ K_l + w d I)⁻¹ K_lᵀ C_l⁻¹

with d = 0.1 (`damping`) where the batch has more than one fact, and w (`second_moment_weight`) 1000 or 10,000.  By
Woodbury's identity that is MEMIT with λ = w d, and for one fact MEMIT with λ → 0, which is ROME's equation 2 at MEMIT's
target.  So EMMET differs from MEMIT by its weight alone; `damping=0` is the equality of the paper.
Value search, keys and blocks are MEMIT's, as in the code, and so are their departures (memit.py); the published
settings edit one block.  Where no block is known for a model, MEMIT's five are edited.  Solved in float64, where the
code inverts C and the inner matrix, and takes a pseudo-inverse where that is singular: facts whose keys are too alike
are refused here.  `ridge` (memit.py) is the code's update_norm_lambda.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from afteredit.edit.method import Prepared, check_numbers
from afteredit.edit.methods.memit import Memit
from afteredit.edit.request import EditRequest
from afteredit.edit.update import State, Update

if TYPE_CHECKING:
    from torch import Tensor

    from afteredit.model.lm import LM


@dataclass(frozen=True)
class Emmet(Memit):
    damping: float = 0.1  # d, added to the inner matrix of a batch of several facts; 0: equality

    def __post_init__(self) -> None:
        super().__post_init__()
        check_numbers(self, damping="at least 0")

    def update(self, lm: LM, requests: Sequence[EditRequest], prepared: Prepared, state: State) -> Update:
        """Returns the change that writes a batch as an equality.  Mutates nothing."""
        from afteredit.edit.ingredients.layer_by_layer import write_in_turn
        from afteredit.edit.ingredients.least_squares import solve_weighted

        def solve(layer: int, keys_FE: Tensor) -> Tensor:
            damping = self.damping if keys_FE.shape[1] > 1 else 0.0
            factor_FF = prepared.factors[f"second_moment/{layer}"]
            return solve_weighted(self.second_moment_weight * damping, keys_FE, factor_FF)

        update = write_in_turn(lm, requests, self.values_of(lm, requests, prepared), prepared, self, solve)
        return replace(update, adds={})  # no later edit needs its keys
