"""The loss whose minimum makes the model say the new target: ROME's v* (Meng et al., 2022, eq. 4), MEMIT's z (2023,
eq. 16).

Over an offset δ, added at the subject's last token of one block under every context prefix, it is
    mean over prefixes of −log p(target | prefix, prompt) + kl_weight · KL(p_δ ‖ p₀ in "{subject} is a")
    + weight_decay · |δ| / |start|²
`start` is what stands there before: ROME's MLP output v, MEMIT's residual stream h after the block.  Adding to either
is the same where the MLP's output is added to the stream as it is (`lm.capabilities.mlp_joins_stream`).
value_search.py minimises it; value_prompts.py makes the token rows that it is computed on.
Departures from the references: the KL term is taken after the whole of "{subject} is a", as ROME's eq. 4 says, where
their code takes it at the subject's last token (`kl_at=subject` does so too); and v is W k* + b at the averaged key k*,
not the output at the bare prompt, so that key, value and residual all speak of the same k* (`bare_start` takes the
reference's).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from afteredit.edit.ingredients.value_settings import ValueSettings


@dataclass(frozen=True)
class TargetValue:
    """ROME's optimised value: k* (averaged over contexts), the bare prompt's key, v* and v* − start.

    `dropped`: v* is too long, and the edit is not to be written.
    """

    key_F: Tensor
    bare_key_F: Tensor
    offset_D: Tensor
    value_D: Tensor
    diagnostics: dict[str, float]
    dropped: bool = False

    def moved_by(self, shift_D: Tensor) -> TargetValue:
        """Returns the value with another v*."""
        return replace(self, offset_D=self.offset_D + shift_D, value_D=self.value_D + shift_D)


@dataclass(frozen=True)
class TargetStream:
    """MEMIT's z: the residual stream wanted after the last edited block, at the bare prompt's subject.

    v* is the output of that block's MLP in it.  `dropped`: v* is too long, and the edit is not to be written.
    """

    z_D: Tensor
    value_D: Tensor
    diagnostics: dict[str, float]
    dropped: bool = False

    def moved_by(self, shift_D: Tensor) -> TargetStream:
        """Returns the target with another v*."""
        return replace(self, z_D=self.z_D + shift_D, value_D=self.value_D + shift_D)


@dataclass(frozen=True)
class ValueLoss:
    """The loss of each request (E,), nats, and two of its terms."""

    total_E: Tensor
    nll_E: Tensor  # −log p(target), mean over contexts and tokens
    kl_E: Tensor
    said: Sequence[bool] = ()  # whether all tokens of its target are the likeliest under all contexts; empty: not asked


def value_loss(
    target_log_p: Sequence[Tensor],
    log_p_EV: Tensor,
    unedited_log_p_EV: Tensor,
    offsets_ED: Tensor,
    start_norms_E: Tensor,
    settings: ValueSettings,
) -> ValueLoss:
    """Returns eq. 4 for E requests, each with an offset of its own.

    `target_log_p`: of each request, log p of its target's tokens under all contexts (N,).  `log_p_EV`: log p of the
    token that follows in "{subject} is a" under the offset, `unedited_log_p_EV` the same without it.
    """
    # one request after the other: an accelerator adds up scattered sums in another order each time
    nll_E = torch.stack([-log_p_N.mean() for log_p_N in target_log_p]).to(offsets_ED.device)
    kl_EV = kl_div(unedited_log_p_EV, log_p_EV, log_target=True, reduction="none")
    kl_E = kl_EV.sum(-1).to(nll_E.device)
    decay_E = settings.weight_decay * offsets_ED.norm(dim=-1) / start_norms_E**2
    return ValueLoss(nll_E + settings.kl_weight * kl_E + decay_E, nll_E, kl_E)
