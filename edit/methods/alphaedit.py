"""AlphaEdit: MEMIT inside the null space of preserved keys (Fang et al., ICLR 2025, eq. 14; the ridge is their code's).

    Δ_l = R_l K_lᵀ P (K_p K_pᵀ P + K_l K_lᵀ P + ρ I)⁻¹,   P = U Uᵀ

U spans the eigenvectors of C = E[k kᵀ] whose eigenvalues are below a threshold, K_p are the keys of earlier edits.
In the coordinates of U this is Δ_l = R_l K̃ᵀ (K̃_p K̃_pᵀ + K̃ K̃ᵀ + ρ I)⁻¹ Uᵀ with K̃ = Uᵀ K: symmetric, smaller, solved
in float64 (the reference solves the asymmetric system in float32).
C must see enough tokens: a direction that no sampled token has looks like null space.  How many is measured in
docs/results/null-space.  An absolute threshold (the paper's 0.02) depends on the scale of a model's activations, so
that rank and retained energy are logged; `threshold_kind=relative` counts in multiples of the mean eigenvalue.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from afteredit.edit.method import Prepared, check_numbers
from afteredit.edit.methods.memit import Memit
from afteredit.edit.methods.memit_seq import key_name
from afteredit.edit.request import EditRequest
from afteredit.edit.update import State, Update
from afteredit.store.errors import BadInput
from afteredit.store.user_cache import content_hash, made_once

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from afteredit.model.lm import LM

log = logging.getLogger(__name__)


class Threshold(Enum):
    absolute = "absolute"  # on eigenvalues of E[k kᵀ], as published
    relative = "relative"  # in multiples of their mean


@dataclass(frozen=True)
class AlphaEdit(Memit):
    value_lr: float = 0.1
    threshold: float = 0.02
    threshold_kind: Threshold = Threshold.absolute
    ridge: float = 10.0  # ρ
    tokens_per_key_dim: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        check_numbers(self, threshold="above 0", ridge="above 0")

    def derived(self, lm: LM, prepared: Prepared) -> Prepared:
        """With the null spaces in place of the second moments.  Raises BadInput where the threshold leaves no direction
        to write in."""
        from safetensors.torch import load_file, save_file

        decides = {**prepared.hashes, "threshold": self.threshold, "kind": self.threshold_kind.value}

        def make(path: Path) -> None:  # on a CPU hours where F is 16384
            save_file(self._null_spaces(prepared.tensors, lm.device), path)

        path = made_once(f"null_space/{content_hash(decides)}.safetensors", make)
        tensors = load_file(path)
        for name in prepared.tensors:
            layer = name.removeprefix("second_moment/")
            F, rank = tensors[f"null_space/{layer}"].shape
            log.info("null space of block %s: %d of %d directions, holding %.4g of the keys' energy", layer, rank, F,
                     tensors[f"energy/{layer}"])  # fmt: skip
        return replace(prepared, tensors=tensors)

    def _null_spaces(self, moments: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
        import torch

        bases: dict[str, Tensor] = {}
        for name, C_FF in moments.items():
            layer = name.removeprefix("second_moment/")
            basis_Fr, energy = null_space(C_FF.to(device), self.threshold, self.threshold_kind)
            if not basis_Fr.shape[1]:
                raise BadInput(f"method.threshold={self.threshold} ({self.threshold_kind.value}) leaves no null space "
                               f"at block {layer}; raise it, or set method.threshold_kind=relative")  # fmt: skip
            bases |= {f"null_space/{layer}": basis_Fr.cpu(), f"energy/{layer}": torch.tensor(energy)}
        return bases

    def update(self, lm: LM, requests: Sequence[EditRequest], prepared: Prepared, state: State) -> tuple[Update, State]:
        """The change that writes a batch where nothing else is; adds the batch's keys to the state."""

        def solve(layer: int, keys_FE: Tensor) -> Tensor:
            past_FF = state.grams.get(key_name(layer))
            return in_null_space(prepared.tensors[f"null_space/{layer}"], keys_FE, past_FF, self.ridge)

        update, keys = self.write(lm, requests, prepared, solve)
        layers = self.edited_layers(lm)
        ranks = [prepared.tensors[f"null_space/{layer}"].shape[1] for layer in layers]
        energies = [float(prepared.tensors[f"energy/{layer}"]) for layer in layers]
        held = {"null_rank": sum(ranks) / len(ranks), "null_energy": sum(energies) / len(energies)}
        diagnostics = {**update.diagnostics, **held}
        adds = {key_name(layer): keys_FE.cpu() for layer, keys_FE in keys.items()}
        update = replace(update, adds=adds, diagnostics=diagnostics)
        return update, state.extended(update)


def null_space(C_FF: Tensor, threshold: float, kind: Threshold) -> tuple[Tensor, float]:
    """U (F, r) float64, orthonormal, and the share of tr C that falls into it."""
    import torch

    values_F, vectors_FF = torch.linalg.eigh(C_FF.double())
    limit = threshold * (float(values_F.mean()) if kind is Threshold.relative else 1.0)
    inside = values_F < limit
    return vectors_FF[:, inside].contiguous(), float(values_F[inside].clamp(min=0).sum() / values_F.sum())


def in_null_space(basis_Fr: Tensor, keys_FE: Tensor, past_FF: Tensor | None, ridge: float) -> Tensor:
    """X = U (K̃_p K̃_pᵀ + K̃ K̃ᵀ + ρ I)⁻¹ K̃, (F, E) float64, where the keys are: the change is
    residual @ Xᵀ.  past_FF: K_p K_pᵀ."""
    import torch

    from afteredit.edit.ingredients.layer_by_layer import regularised

    basis_Fr = basis_Fr.to(keys_FE.device)
    A_rr = ridge * torch.eye(basis_Fr.shape[1], dtype=torch.float64, device=basis_Fr.device)
    if past_FF is not None:
        A_rr += basis_Fr.T @ past_FF.to(basis_Fr) @ basis_Fr
    return basis_Fr @ regularised(A_rr, basis_Fr.T @ keys_FE.double())
