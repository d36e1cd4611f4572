"""MEMIT in sequence: what was written before is protected as facts of one batch are (memit_seq in AlphaEdit's code).

    Δ_l = R_l K_lᵀ (λ C_l + Σ_past K K ᵀ + K_l K_lᵀ)⁻¹

For fixed keys and targets at one block, any number of batches so written add up to the one least-squares solution over
all of them (recursive least squares; Labyrinth & Thread, arXiv 2605.26670, makes this alignment what keeps models
stable).  Past keys are those each edit was written at; they are State, added to by every edit, folded from the journal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from afteredit.edit.method import Prepared
from afteredit.edit.methods.memit import Memit
from afteredit.edit.request import EditRequest
from afteredit.edit.update import State, Update

if TYPE_CHECKING:
    from torch import Tensor

    from afteredit.model.lm import LM


@dataclass(frozen=True)
class MemitSeq(Memit):
    def derived(self, lm: LM, prepared: Prepared) -> Prepared:
        return prepared  # what is inverted grows with every edit

    def update(self, lm: LM, requests: Sequence[EditRequest], prepared: Prepared, state: State) -> tuple[Update, State]:
        """The change that writes a batch and leaves earlier ones; adds the batch's keys to the state."""
        from afteredit.edit.ingredients.layer_by_layer import regularised

        def solve(layer: int, keys_FE: Tensor) -> Tensor:
            A_FF = self.second_moment_weight * prepared.tensors[f"second_moment/{layer}"].to(keys_FE.device).double()
            if key_name(layer) in state.grams:
                A_FF += state.grams[key_name(layer)].to(A_FF)
            return regularised(A_FF, keys_FE)

        update, keys = self.write(lm, requests, prepared, solve)
        update = replace(update, adds={key_name(layer): keys_FE.cpu() for layer, keys_FE in keys.items()})
        return update, state.extended(update)


def key_name(layer: int) -> str:
    """Under which a State holds the keys written at a block."""
    return f"keys/{layer}"
