"""The linear systems that ROME, MEMIT and their heirs solve, in float64.

C = E[k kᵀ] is the second moment of keys (F, F), K the keys (F, E) of the facts that are written.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from afteredit.store.errors import BadInput, NoEdit

TOO_FEW_TOKENS = ("the second moment of keys is singular: it was estimated from too few tokens; raise "
                  "method.tokens_per_key_dim")  # fmt: skip
LEAST_OWN = 1e-10  # a key's squared part of its own, ÷ the whole: float32 keys that are one differ by 1e-6 or less


def factors(moments: Mapping[str, Tensor], device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Returns the Cholesky factor (F, F) of each second moment, made on the device and kept on the CPU, in float64.

    A second moment is ill-conditioned, so float32 would not do.  A factor costs F³/3 operations (a minute on few cores
    where F is 16384, as GPT-J's) and is made once.  Raises BadInput where a second moment is singular.
    """
    return {name: _factor(name, moment_FF, device) for name, moment_FF in moments.items()}


def _factor(name: str, moment_FF: Tensor, device: torch.device | str) -> Tensor:
    factor_FF, failed = torch.linalg.cholesky_ex(moment_FF.to(device).double())
    if failed:
        n_silent = int((moment_FF.diagonal() == 0).sum())
        silent = (f"{n_silent} of the {len(moment_FF)} neurons before {name} never fire, so that the second moment of "
                  "keys is singular; choose another block (method.layer, method.layers)")  # fmt: skip
        raise BadInput(silent if n_silent else TOO_FEW_TOKENS)
    return factor_FF.cpu()


def inverse_times(factor_FF: Tensor, keys_FE: Tensor) -> Tensor:
    """Returns C⁻¹ K (F, E), float64 on the CPU, by C's Cholesky factor."""
    return torch.cholesky_solve(keys_FE.double().cpu(), factor_FF)


def solve_regularised(A_FF: Tensor, keys_FE: Tensor) -> Tensor:
    """Returns X = (A + K Kᵀ)⁻¹ K, (F, E) float64, on the keys' device, for a symmetric positive definite A.

    X is NaN where keys have overflowed.  Raises NoEdit where the sum is singular.
    """
    keys_FE = keys_FE.double()
    if not keys_FE.isfinite().all():
        return torch.full_like(keys_FE, torch.nan)
    factor_FF, failed = torch.linalg.cholesky_ex(A_FF.to(keys_FE) + keys_FE @ keys_FE.T)
    if failed:
        raise NoEdit(TOO_FEW_TOKENS)
    return torch.cholesky_solve(keys_FE, factor_FF)


def solve_weighted(weight: float, keys_FE: Tensor, factor_FF: Tensor) -> Tensor:
    """Returns X = (λ C + K Kᵀ)⁻¹ K, (F, E) float64 on the CPU, by C's Cholesky factor.

    By Woodbury's identity X = C⁻¹K (λ I + Kᵀ C⁻¹K)⁻¹, so that the system solved for each batch is E wide, not F.
    X is NaN where keys have overflowed.  Raises NoEdit where that system is singular, or is regular by rounding alone:
    the square of a pivot is what the keys before it leave of a key's kᵀ C⁻¹ k + λ.
    """
    solved_FE = inverse_times(factor_FF, keys_FE)
    keys_FE = keys_FE.cpu().double()
    if not keys_FE.isfinite().all():
        return torch.full_like(keys_FE, torch.nan)
    inner_EE = weight * torch.eye(keys_FE.shape[1], dtype=torch.float64) + keys_FE.T @ solved_FE
    factor_EE, failed = torch.linalg.cholesky_ex((inner_EE + inner_EE.T) / 2)
    if failed or bool((factor_EE.diagonal().square() < LEAST_OWN * inner_EE.diagonal()).any()):
        raise NoEdit("facts of this batch have keys too alike to be told apart at this weight; raise "
                     "method.second_moment_weight or, with EMMET, method.damping, or write them in batches of their "
                     "own")  # fmt: skip
    return torch.cholesky_solve(solved_FE.T, factor_EE).T


def before_norm(wanted_DE: Tensor, now_DE: Tensor, scale_D: Tensor) -> Tensor:
    """Returns x (D, E) float64, as long as `now`, whose n(x) = g ∘ x / rms(x) is nearest to what is wanted.

    n(x) = g ∘ w, where w = x / rms(x) has |w|² = D, so not every output can be had.  Of w on that sphere
        w = g ∘ v / (g² + λ),   λ > −min g² with |w|² = D
    minimises |g ∘ w − v|² for the wanted v; λ is found by bisection.  The length of x changes nothing.  An update that
    goes only part of the way from x_now turns a longer x sooner, so x is as long as x_now, and not the shorter one that
    is nearest to it (docs/results/behind-a-norm).
    """
    g_D1, v_DE, now_DE = scale_D.double()[:, None], wanted_DE.double(), now_DE.double()
    size, gv_DE = len(g_D1), g_D1 * v_DE
    above_D1 = g_D1.square() - g_D1.square().min()
    low_E = torch.zeros_like(v_DE[0])
    high_E = gv_DE.norm(dim=0) / size**0.5  # |w|² ≤ D there, with λ + min g² = high
    for _ in range(200):
        middle_E = (low_E + high_E) / 2
        long_E = (gv_DE / (above_D1 + middle_E)).square().sum(0) > size
        low_E, high_E = torch.where(long_E, middle_E, low_E), torch.where(long_E, high_E, middle_E)
    w_DE = gv_DE / (above_D1 + high_E)
    return w_DE * (now_DE.norm(dim=0) / w_DE.norm(dim=0))
