"""What MEMIT and its heirs share: one target for each fact, approached block after block (Meng et al., 2023, §4.3).

Each block l of l₁ < … < L gets the share 1/(L − l + 1), counted in edited blocks, of what is still missing of z at
block L; keys and what is missing are measured anew on the model with the blocks before already changed.  No constraint
acts between the blocks: it sees the finished update.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from afteredit.edit.ingredients.subject_keys import subject_keys, subject_streams
from afteredit.edit.ingredients.target_value import Target
from afteredit.edit.request import EditRequest
from afteredit.edit.update import LowRank, Update
from afteredit.model.lm import LM
from afteredit.store.errors import NoEdit

Solve = Callable[[int, Tensor], Tensor]  # (layer, keys (F, E)) -> X (F, E) float64: the change is residual @ Xᵀ


def write_in_turn(
    lm: LM, requests: Sequence[EditRequest], targets: Sequence[Target], contexts: Sequence[str], layers: Sequence[int],
    solve: Solve,
) -> tuple[Update, dict[int, Tensor]]:  # fmt: skip
    """The update of all `layers` (lowest first) towards each request's target behind the last, and the keys (F, E) that
    it was written at, by layer.  Mutates nothing."""
    z_DE = torch.stack([target.z_D for target in targets], dim=1)
    changes, keys = {}, {}
    with lm.weights.undone(layers):
        missing_DE = z_DE - subject_streams(lm, requests, layers[-1])
        missing_before = missing_DE.norm()
        for i, layer in enumerate(layers):
            keys[layer] = subject_keys(lm, requests, contexts, layer)
            right_FE = solve(layer, keys[layer])
            change = LowRank((missing_DE / (len(layers) - i)).cpu(), right_FE.float().cpu())
            changes[lm.mlp_out_name(layer)] = change
            lm.weights.add({lm.mlp_out_name(layer): change})
            missing_DE = z_DE - subject_streams(lm, requests, layers[-1])
    diagnostics = {
        name: sum(target.diagnostics[name] for target in targets) / len(targets) for name in targets[0].diagnostics
    }
    diagnostics["missing_share"] = float(missing_DE.norm() / missing_before)  # of the way to z, what was not gone
    diagnostics["update_norm"] = sum(change.norm() ** 2 for change in changes.values()) ** 0.5
    return Update(changes, diagnostics=diagnostics), keys


def layers_up_to(lm: LM, n: int = 5) -> list[int]:
    """Where a model with no published blocks is edited: `n` blocks that end at the model's default one, as GPT-2 XL's
    13 to 17 of 48, GPT-J's 3 to 8 of 28 and Llama's 4 to 8 of 32 do, nearly."""
    return list(range(max(0, lm.default_layer - n + 1), lm.default_layer + 1))


def regularised(A_FF: Tensor, keys_FE: Tensor) -> Tensor:
    """X = (A + K Kᵀ)⁻¹ K, (F, E) float64, for a symmetric positive definite A; solved where the keys are.

    NaN where keys have overflowed; raises NoEdit where the sum is singular: too few tokens behind the second moment.
    """
    keys_FE = keys_FE.double()
    if not keys_FE.isfinite().all():
        return torch.full_like(keys_FE, torch.nan)
    factor_FF, failed = torch.linalg.cholesky_ex(A_FF.to(keys_FE) + keys_FE @ keys_FE.T)
    if failed:
        raise NoEdit("the second moment of keys is singular: too few tokens stand behind it; raise "
                     "method.tokens_per_key_dim")  # fmt: skip
    return torch.cholesky_solve(keys_FE, factor_FF)


def weighted(weight: float, keys_FE: Tensor, solved_FE: Tensor) -> Tensor:
    """X = (λ C + K Kᵀ)⁻¹ K = C⁻¹K (λ I + Kᵀ C⁻¹K)⁻¹ (Woodbury), (F, E) float64: what is solved anew is E wide, not F.

    `solved_FE` is C⁻¹K, on the CPU.  NaN where keys have overflowed; raises NoEdit where the keys' own system is
    singular.
    """
    keys_FE = keys_FE.cpu().double()
    if not keys_FE.isfinite().all():
        return torch.full_like(keys_FE, torch.nan)
    inner_EE = weight * torch.eye(keys_FE.shape[1], dtype=torch.float64) + keys_FE.T @ solved_FE
    factor_EE, failed = torch.linalg.cholesky_ex((inner_EE + inner_EE.T) / 2)
    if failed:
        raise NoEdit("facts of this batch have keys too alike to be told apart at this weight; raise "
                     "method.second_moment_weight, or write them in batches of their own")  # fmt: skip
    return torch.cholesky_solve(solved_FE.T, factor_EE).T
