"""AlphaEdit: MEMIT inside the null space of preserved keys (Fang et al., ICLR 2025, eq. 14; the ridge is their code's).

    Δ_l = R_l K_lᵀ P (K_p K_pᵀ P + K_l K_lᵀ P + ρ I)⁻¹,   P = U Uᵀ

U spans the eigenvectors of C = E[k kᵀ] whose eigenvalues are below a threshold, K_p are the keys of earlier edits.
In the coordinates of U this is Δ_l = R_l K̃ᵀ (K̃_p K̃_pᵀ + K̃ K̃ᵀ + ρ I)⁻¹ Uᵀ with K̃ = Uᵀ K: symmetric, smaller, solved
in float64 (the reference solves the asymmetric system in float32).
C must see enough tokens: a direction that no sampled token has looks like null space.  How many is measured in
docs/results/null-space.  An absolute threshold (the paper's 0.02) depends on the scale of a model's activations, so
rank and retained energy are logged; `threshold_kind=relative` counts in multiples of the mean eigenvalue.

BetaEdit (IJCAI 2026) is two keys of it, off by default, since a null space found by a threshold leaks:
    Δ_lᵀ = (P_t (K_l K_lᵀ + G + λ₁ C) + ρ I)⁻¹ P_t K_l R_lᵀ,   G = K_p K_pᵀ   (`second_moment_weight`; published: 3000)
    after every τ edits P_t is made again, of (G / n + λ₁ C) / (λ₁ + 1)   (`rebuild_every`; published: 1000)
with n edits so far and the same threshold; the rebuilt U is part of the state.  Departure from its code
(lbq8942/BetaEdit, algs/betaedit, read at 2934b3f): it ends a run where |Δ| / √n > 20 for a batch of n; here a run ends
by its own rules for a collapse.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from afteredit.edit.ingredients.value_settings import Distribute, KlAt, ValueKeys, check_blocks
from afteredit.edit.method import Given, Method, Prepared, check_numbers
from afteredit.edit.request import EditRequest
from afteredit.edit.update import State, Update
from afteredit.model.costs.work import Cost, Work
from afteredit.store.errors import BadInput, NoEdit
from afteredit.store.field_roles import WEIGHTS, decides
from afteredit.store.user_cache import cache_key, made_once

if TYPE_CHECKING:
    from torch import Tensor

    from afteredit.edit.ingredients.target_value import TargetStream
    from afteredit.model.lm import LM

log = logging.getLogger(__name__)
FORMAT = 1  # raised when another null space is made of the same second moment


class Threshold(Enum):
    absolute = "absolute"  # on eigenvalues of E[k kᵀ], as published
    relative = "relative"  # in multiples of their mean


@dataclass(frozen=True)
class AlphaEdit(ValueKeys, Method):
    layers: list[int] | None = None  # blocks edited, lowest first; None: five that end a quarter of the way up
    threshold: float = 0.02  # on the eigenvalues of C
    threshold_kind: Threshold = Threshold.absolute
    ridge: float = 10.0  # ρ
    second_moment_weight: float = 0.0  # BetaEdit's λ₁: preserved keys' weight inside the null space
    rebuild_every: int = 0  # BetaEdit's τ: edits after which the null space is made again; 0: never
    distribute: Distribute = Distribute.spread
    merge_subjects: bool = False  # facts of one subject in one batch share a key and an offset (MEMIT-Merge)
    value_steps: int = 25  # losses computed for z; Adam steps are one fewer
    value_lr: float = 0.1
    weight_decay: float = 0.5  # on |offset| / |h|²
    kl_weight: float = 0.0625
    kl_at: KlAt = KlAt.prompt_end  # subject: as the references' code
    max_offset: float = 0.75  # cap on |z - h|, in multiples of |h|
    stop_loss: float = 0.05
    contexts: int = 5  # sampled prefixes of 10 tokens, beside the bare prompt
    contexts_count_opening: bool = False  # whether the opening word is one of the 10, as in the reference
    # sampled (from the model itself), hub:<data set>, or a text file
    second_moment_text: str = field(default="sampled", metadata=decides(WEIGHTS, by_content=True))
    tokens_per_key_dim: int = 100

    optimises_values: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_blocks(self.layers, self.distribute)
        check_numbers(self, threshold="above 0", ridge="above 0", value_steps="at least 1", value_lr="above 0",
                      weight_decay="at least 0", kl_weight="at least 0", max_offset="above 0", contexts="at least 0",
                      tokens_per_key_dim="at least 1", second_moment_weight="at least 0",
                      rebuild_every="at least 0")  # fmt: skip
        if self.rebuild_every and not self.second_moment_weight:
            raise BadInput(f"method.rebuild_every={self.rebuild_every} with method.second_moment_weight=0 would forget "
                           "the preserved keys; set method.second_moment_weight above 0 (BetaEdit: 3000)")  # fmt: skip

    def edited(self, lm: LM) -> list[str]:
        return [lm.mlp_out_name(layer) for layer in self.edited_layers(lm)]

    def edited_layers(self, lm: LM) -> list[int]:
        """Returns the blocks whose MLP output matrices are edited, lowest first."""
        from afteredit.edit.ingredients.layer_by_layer import edited_blocks

        return edited_blocks(lm, self.layers, self.distribute)

    @property
    def values_are_independent(self) -> bool:
        return not self.merge_subjects

    def content(self, given: Given) -> dict[str, str]:
        from afteredit.edit.ingredients.sampled_text import identity
        from afteredit.edit.ingredients.value_norm import pilot_content

        return {"second_moment_text": identity(self.second_moment_text), **pilot_content(self, given)}

    def prepare(self, lm: LM, given: Given) -> Prepared:
        """Returns context prefixes, anchors and each block's null space, in place of its second moment (beside it where
        that has a weight).

        Raises BadInput where the threshold leaves no direction to write in, and where the MLP's output is not added to
        the residual stream as it is (Gemma 2).
        """
        from safetensors.torch import load_file, save_file

        from afteredit.edit.ingredients.layer_by_layer import prepare_blocks

        prepared = prepare_blocks(lm, self, given)
        keeps_moments = self.second_moment_weight > 0
        tensors = {name: tensor for name, tensor in prepared.tensors.items()
                   if keeps_moments or not name.startswith("second_moment/")}  # fmt: skip
        threshold = [self.threshold, self.threshold_kind.value]
        for layer in self.edited_layers(lm):  # a file each: it takes hours on a CPU where F is 16384
            decides = {"second_moment": prepared.hashes["second_moment"], "layer": layer, "threshold": threshold}

            def make(path: Path, layer: int = layer) -> None:
                save_file(self._null_space(layer, prepared.tensors[f"second_moment/{layer}"].to(lm.device)), path)

            name = f"null_space/{cache_key(FORMAT, decides)}.safetensors"
            tensors |= load_file(made_once(name, make, f"computing the null space of block {layer}"))
            F, rank = tensors[f"null_space/{layer}"].shape
            log.info("null space of block %s: %d of %d directions, holding %.4g of the keys' energy", layer, rank, F,
                     tensors[f"energy/{layer}"])  # fmt: skip
        return replace(prepared, tensors=tensors)

    def _null_space(self, layer: int, C_FF: Tensor) -> dict[str, Tensor]:
        import torch

        basis_Fr, energy = null_space(C_FF, self.threshold, self.threshold_kind)
        if not basis_Fr.shape[1]:
            raise BadInput(f"method.threshold={self.threshold} ({self.threshold_kind.value}) leaves no null space at "
                           f"block {layer}; raise it, or set method.threshold_kind=relative")  # fmt: skip
        return {f"null_space/{layer}": basis_Fr.cpu(), f"energy/{layer}": torch.tensor(energy)}

    def cost(self, lm: LM, batch: Sequence[EditRequest], together: int) -> Cost:
        """Takes the null space to have every direction: how many there are is known only once it is made."""
        from afteredit.edit.costs.values import cube, factors_bytes, square, written_in_turn

        layers = self.edited_layers(lm)
        cost, entries, cubes = written_in_turn(lm, batch, layers, self, together), square(lm, layers), cube(lm, layers)
        cpu = {"null spaces": 8 * entries, "keys of earlier edits": 8 * entries}
        cpu |= {"second moments": 4 * entries} if self.second_moment_weight else {}
        return replace(cost, once=cost.once + Work(solving=9 * cubes),  # eigenvectors
                       update=cost.update + Work(solving=4.4 * cubes, moved=32 * entries), cpu=cpu,
                       updating=max(cost.updating, 32 * entries / len(layers)), preparing=40 * entries / len(layers),
                       disk=cost.disk + factors_bytes(lm, layers, len(batch)),
                       notes=("the null space is taken to have all of F directions",))  # fmt: skip

    def find_values(
        self, lm: LM, requests: Sequence[EditRequest], prepared: Prepared, together: int
    ) -> dict[str, TargetStream]:
        """Returns each request's z, by its id.  Mutates nothing."""
        from afteredit.edit.ingredients.layer_by_layer import first_targets

        return first_targets(lm, requests, prepared, self, together)

    def update(self, lm: LM, requests: Sequence[EditRequest], prepared: Prepared, state: State) -> Update:
        """Returns the change that writes a batch inside the null space; it adds the batch's keys."""
        from afteredit.edit.ingredients.layer_by_layer import key_name, write_in_turn

        now = {**prepared.tensors, **state}  # a rebuilt null space takes the place of the first

        def solve(layer: int, keys_FE: Tensor) -> Tensor:
            protected_FF = state.get(key_name(layer))
            if self.second_moment_weight:
                weighted_FF = self.second_moment_weight * prepared.tensors[f"second_moment/{layer}"].double()
                protected_FF = weighted_FF if protected_FF is None else protected_FF + weighted_FF.to(protected_FF)
            return in_null_space(now[f"null_space/{layer}"], keys_FE, protected_FF, self.ridge)

        layers = self.edited_layers(lm)
        update = write_in_turn(lm, requests, self.values_of(lm, requests, prepared), prepared, self, solve)
        ranks = [now[f"null_space/{layer}"].shape[1] for layer in layers]
        energies = [float(now[f"energy/{layer}"]) for layer in layers]
        means = {"null_rank": sum(ranks) / len(ranks), "null_energy": sum(energies) / len(energies)}
        return replace(update, diagnostics={**update.diagnostics, **means})

    def extend(self, state: State, update: Update, prepared: Prepared) -> State:
        """Returns the state with the update's keys added to Σ K Kᵀ of each block; where it is time, with null spaces
        that leave the directions of these keys out."""
        import torch

        from afteredit.edit.ingredients.layer_by_layer import with_keys_added

        extended = with_keys_added(state, update)
        if not self.rebuild_every or not update.adds:
            return extended
        n_new = next(iter(update.adds.values())).shape[1]
        n_edits = state.get("n_edits", torch.zeros((), dtype=torch.float64)) + n_new
        extended = {**extended, "n_edits": n_edits}
        if n_edits - state.get("rebuilt_at", torch.zeros_like(n_edits)) < self.rebuild_every:
            return extended
        return {**extended, **self._rebuilt(extended, prepared), "rebuilt_at": n_edits}

    def _rebuilt(self, state: State, prepared: Prepared) -> State:
        """Returns the null spaces of past and preserved keys, and the share of these that falls into them."""
        import torch

        from afteredit.edit.ingredients.layer_by_layer import key_name

        weight = self.second_moment_weight
        rebuilt: dict[str, Tensor] = {}
        for layer in (int(name.partition("/")[2]) for name in prepared.tensors if name.startswith("null_space/")):
            C_FF = prepared.tensors[f"second_moment/{layer}"].double()
            past_FF = state.get(key_name(layer), torch.zeros(())).to(C_FF)  # none where an anchor dropped all of them
            mean_FF = (past_FF / state["n_edits"].to(C_FF) + weight * C_FF) / (weight + 1)
            basis_Fr, energy = null_space(mean_FF, self.threshold, self.threshold_kind)
            log.info("null space of block %s after %d edits: %d of %d directions", layer, state["n_edits"],
                     basis_Fr.shape[1], len(basis_Fr))  # fmt: skip
            rebuilt |= {f"null_space/{layer}": basis_Fr, f"energy/{layer}": torch.tensor(energy)}
        return rebuilt


def null_space(C_FF: Tensor, threshold: float, kind: Threshold) -> tuple[Tensor, float]:
    """Returns U (F, r) float64, orthonormal, and the share of tr C that falls into it."""
    import torch

    values_F, vectors_FF = torch.linalg.eigh(C_FF.double())
    limit = threshold * (float(values_F.mean()) if kind is Threshold.relative else 1.0)
    inside = values_F < limit
    return vectors_FF[:, inside].contiguous(), float(values_F[inside].clamp(min=0).sum() / values_F.sum())


def in_null_space(basis_Fr: Tensor, keys_FE: Tensor, protected_FF: Tensor | None, ridge: float) -> Tensor:
    """Returns X = U (Uᵀ A U + K̃ K̃ᵀ + ρ I)⁻¹ K̃, (F, E) float64, on the keys' device: the change is residual @ Xᵀ.

    A, `protected_FF`, is K_p K_pᵀ, or BetaEdit's K_p K_pᵀ + λ₁ C.  Raises NoEdit where U has no direction left."""
    import torch

    from afteredit.edit.ingredients.least_squares import solve_regularised

    if not basis_Fr.shape[1]:
        raise NoEdit("earlier edits left no null space to write in; raise method.threshold or method.rebuild_every")
    basis_Fr = basis_Fr.to(keys_FE.device)
    A_rr = ridge * torch.eye(basis_Fr.shape[1], dtype=torch.float64, device=basis_Fr.device)
    if protected_FF is not None:
        A_rr += basis_Fr.T @ protected_FF.to(basis_Fr) @ basis_Fr
    return basis_Fr @ solve_regularised(A_rr, basis_Fr.T @ keys_FE.double())
