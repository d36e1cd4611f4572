"""MEMIT_seq: MEMIT that protects earlier batches as it protects facts of one batch (memit_seq in AlphaEdit's code).

    Δ_l = R_l K_lᵀ (λ C_l + ρ I + Σ_past K K ᵀ + K_l K_lᵀ)⁻¹

For fixed keys and targets at one block, any number of batches so written add up to the one least-squares solution over
all of them (recursive least squares; Labyrinth & Thread, arXiv 2605.26670, makes this alignment what keeps models
stable).  With ρ (`ridge`, 0 by default) that is the solution which also minimises ρ |W − W₀|²: ENCORE's and RLSEdit's.
RLSEdit's code also takes off the old output at each new key, against its equation; that is not taken over.  Past keys
are those that each edit was written at; the state holds Σ K Kᵀ over them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from afteredit.edit.method import Given, Prepared
from afteredit.edit.methods.memit import Memit
from afteredit.edit.request import EditRequest
from afteredit.edit.update import State, Update
from afteredit.model.costs.work import Cost, Work

if TYPE_CHECKING:
    from torch import Tensor

    from afteredit.model.lm import LM


@dataclass(frozen=True)
class MemitSeq(Memit):
    def prepare(self, lm: LM, given: Given) -> Prepared:
        """Returns context prefixes and the second moments themselves: what is inverted grows with every edit."""
        from afteredit.edit.ingredients.layer_by_layer import prepare_blocks

        return prepare_blocks(lm, self, given)

    def cost(self, lm: LM, batch: Sequence[EditRequest], together: int) -> Cost:
        from afteredit.edit.costs.values import cube, factors_bytes, square, written_in_turn

        layers = self.edited_layers(lm)
        cost, entries = written_in_turn(lm, batch, layers, self, together), square(lm, layers)
        one = entries / len(layers)
        return replace(cost, update=cost.update + Work(solving=cube(lm, layers) / 3, moved=32 * entries),
                       cpu={"second moments": 4 * entries, "keys of earlier edits": 8 * entries},
                       updating=max(cost.updating, 32 * one), preparing=8 * entries + 20 * one,
                       disk=cost.disk + factors_bytes(lm, layers, len(batch)))  # fmt: skip

    def update(self, lm: LM, requests: Sequence[EditRequest], prepared: Prepared, state: State) -> Update:
        """Returns the change that writes a batch and leaves earlier ones as they are; it adds the batch's keys."""
        from afteredit.edit.ingredients.layer_by_layer import key_name, write_in_turn
        from afteredit.edit.ingredients.least_squares import solve_regularised

        def solve(layer: int, keys_FE: Tensor) -> Tensor:
            A_FF = self.second_moment_weight * self.with_ridge(prepared.tensors[f"second_moment/{layer}"]).to(
                keys_FE.device
            )
            if key_name(layer) in state:
                A_FF += state[key_name(layer)].to(A_FF)
            return solve_regularised(A_FF, keys_FE)

        return write_in_turn(lm, requests, self.values_of(lm, requests, prepared), prepared, self, solve)

    def extend(self, state: State, update: Update, prepared: Prepared) -> State:
        """Returns the state with the update's keys added to Σ K Kᵀ of each block."""
        from afteredit.edit.ingredients.layer_by_layer import with_keys_added

        return with_keys_added(state, update)
