"""v*: the MLP output at the subject's last token under which the model says the new target (Meng et al., 2022, eq. 4).

Minimises over an offset δ, added to the MLP's output under every context prefix,
    mean over prefixes of −log p(target | prefix, prompt) + kl_weight · KL(p₀ ‖ p_δ at "{subject} is a")
    + weight_decay · |δ| / |v|²
by Adam, projected after each step to |δ| ≤ max_offset · |v|, stopped early at `stop_loss`.
Departure from the reference: v is W k* + b at the averaged key k*, not the output at the bare prompt, so that key,
value and residual all speak of the same k* (the reference's mixture of the two is what disables models).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from afteredit.edit.lm import LM
from afteredit.edit.prefix import Replay
from afteredit.edit.request import BadInput, EditRequest


class ValueSettings(Protocol):
    """What a method that optimises values has among its keys."""

    @property
    def value_steps(self) -> int: ...
    @property
    def value_lr(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def kl_weight(self) -> float: ...
    @property
    def max_offset(self) -> float: ...
    @property
    def stop_loss(self) -> float: ...


@dataclass(frozen=True)
class Prompts:
    """Token rows of one request: every context's prompt with the target but its last token, and last the KL prompt."""

    rows: list[list[int]]
    subject_lasts: list[int]
    prompt_ends: list[int]  # index of each row's last prompt token: its logits predict the first answer token
    target: tuple[int, ...]


@dataclass(frozen=True)
class Value:
    """key_F: k*, averaged over contexts; bare_key_F: the bare prompt's; offset_D: v* − (W k* + b)."""

    key_F: Tensor
    bare_key_F: Tensor
    offset_D: Tensor
    diagnostics: dict[str, float]


def value_prompts(lm: LM, request: EditRequest, contexts: Sequence[str]) -> Prompts:
    target = lm.answer_ids(request.target_new)
    rows, subject_lasts, prompt_ends = [], [], []
    for context in contexts:
        front = f"{context}. " if context else ""
        ids, last = lm.locate(front + request.question, len(front) + request.subject_start, len(request.subject))
        rows.append([*ids, *target[:-1]])
        subject_lasts.append(last)
        prompt_ends.append(len(ids) - 1)
    ids, last = lm.locate(f"{request.subject} is a", 0, len(request.subject))
    return Prompts([*rows, ids], [*subject_lasts, last], [*prompt_ends, len(ids) - 1], target)


def optimise_value(lm: LM, request: EditRequest, contexts: Sequence[str], layer: int, settings: ValueSettings) -> Value:
    """The averaged key and the offset that makes the model say the new target.  Mutates nothing."""
    prompts = value_prompts(lm, request, contexts)
    replay = Replay(lm, prompts.rows, prompts.subject_lasts, layer)
    n = len(contexts)
    keys_BF = replay.key_BF[:n].float()
    key_F = keys_BF.mean(0)
    value_norm = replay.value_BD[:n].float().mean(0).norm()  # |W k* + b|: the projection is affine
    targets = torch.tensor(prompts.target, device=keys_BF.device)
    ends = torch.tensor(prompts.prompt_ends) - torch.tensor(prompts.subject_lasts)
    row_of = torch.arange(n)[:, None].expand(n, len(targets))
    column_of = ends[:n, None] + torch.arange(len(targets))[None]

    offset_D = torch.zeros(replay.value_BD.shape[-1], device=keys_BF.device, requires_grad=True)
    adam = torch.optim.Adam([offset_D], lr=settings.value_lr)
    before_kl_V = None
    for step in range(settings.value_steps):
        with torch.enable_grad():
            hidden_BTD = replay.hidden(offset_D)
            log_p_NTV = lm.logits(hidden_BTD[row_of, column_of]).log_softmax(-1)
            log_p_N = log_p_NTV.gather(-1, targets.expand(n, -1)[..., None])[..., 0].mean(-1)
            kl_V = lm.logits(hidden_BTD[n, ends[n]]).log_softmax(-1)
            if before_kl_V is None:
                before_kl_V = kl_V.detach()
            kl = torch.nn.functional.kl_div(kl_V, before_kl_V, log_target=True, reduction="sum")
            decay = settings.weight_decay * offset_D.norm() / value_norm**2
            loss = -log_p_N.mean() + settings.kl_weight * kl + decay
        if step == 0:
            first_nll = -float(log_p_N.detach().mean())
        if float(loss.detach()) < settings.stop_loss or step == settings.value_steps - 1:
            break
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            limit = settings.max_offset * value_norm
            if offset_D.norm() > limit:
                offset_D.mul_(limit / offset_D.norm())
    if step and not offset_D.detach().any():
        raise BadInput(f"an edit at block {layer} cannot reach the prediction of {request.question!r}: no block behind "
                       "it moves the subject's change to the last token; choose a lower method.layer")  # fmt: skip
    return Value(
        key_F=key_F,
        bare_key_F=keys_BF[list(contexts).index("")],
        offset_D=offset_D.detach(),
        diagnostics={
            "steps": step,
            "loss": float(loss.detach()),
            "kl": float(kl.detach()),
            "nll_before": first_nll,
            "nll_after": -float(log_p_N.detach().mean()),
            "offset_over_value": float(offset_D.detach().norm() / value_norm),
        },
    )
