"""Under what the model says the new target: ROME's v* (Meng et al., 2022, eq. 4), MEMIT's z (2023, eq. 16).

Minimises over an offset δ, added at the subject's last token of one block under every context prefix,
    mean over prefixes of −log p(target | prefix, prompt) + kl_weight · KL(p_δ ‖ p₀ at "{subject} is a")
    + weight_decay · |δ| / |start|²
by Adam, projected after each step to |δ| ≤ max_offset · |start|, stopped early at `stop_loss`.
`start` is what stands there before: ROME's MLP output v, MEMIT's residual stream h behind the block.  Adding to either
is the same where the MLP's output is added to the stream as it is (`lm.writes_straight`).
Departures from the references: the KL term is taken behind the whole of "{subject} is a", as ROME's eq. 4 says, not
at the subject's last token, as its code does; and v is W k* + b at the averaged key k*, not the output at the bare
prompt, so that key, value and residual all speak of the same k* (`bare_start` takes the reference's).
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
    """ROME's.  key_F: k*, averaged over contexts; bare_key_F: the bare prompt's; offset_D: v* − start."""

    key_F: Tensor
    bare_key_F: Tensor
    offset_D: Tensor
    diagnostics: dict[str, float]


@dataclass(frozen=True)
class Target:
    """MEMIT's z_D: the residual stream wanted behind the last edited block, at the bare prompt's subject."""

    z_D: Tensor
    diagnostics: dict[str, float]


def optimise_value(
    lm: LM,
    request: EditRequest,
    contexts: Sequence[str],
    layer: int,
    settings: ValueSettings,
    *,
    bare_start: bool = False,
) -> Value:
    """The averaged key, and the offset to the MLP's output that makes the model say the new target.  Mutates nothing.

    `bare_start` measures the offset against the bare prompt's output instead of the averaged key's.
    """
    prompts = value_prompts(lm, request, contexts)
    replay = Replay(lm, prompts.rows, prompts.subject_lasts, layer)
    n, bare = len(contexts), list(contexts).index("")
    keys_BF, values_BD = replay.keys_BF[layer][:n].float(), replay.values_BD[layer][:n].float()
    # the projection is affine: the mean of the outputs is the output at the mean key
    start_D = values_BD[bare] if bare_start else values_BD.mean(0)
    offset_D, diagnostics = _optimise_offset(lm, request, prompts, replay, start_D, settings)
    return Value(keys_BF.mean(0), keys_BF[bare], offset_D, diagnostics)


def optimise_target(
    lm: LM, request: EditRequest, contexts: Sequence[str], layer: int, settings: ValueSettings
) -> Target:
    """The residual stream behind block `layer` under which the model says the new target.  Mutates nothing."""
    prompts = value_prompts(lm, request, contexts)
    replay = Replay(lm, prompts.rows, prompts.subject_lasts, layer)
    start_D = replay.streams_BD[layer][list(contexts).index("")].float()
    offset_D, diagnostics = _optimise_offset(lm, request, prompts, replay, start_D, settings)
    return Target(start_D + offset_D, diagnostics)


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


def _optimise_offset(
    lm: LM, request: EditRequest, prompts: Prompts, replay: Replay, start_D: Tensor, settings: ValueSettings
) -> tuple[Tensor, dict[str, float]]:
    n, device = len(prompts.rows) - 1, start_D.device  # a sharded model's head may be on another
    targets = torch.tensor(prompts.target, device=lm.head_device)
    ends = torch.tensor(prompts.prompt_ends) - torch.tensor(prompts.subject_lasts)
    row_of = torch.arange(n)[:, None].expand(n, len(targets))
    column_of = ends[:n, None] + torch.arange(len(targets))[None]

    offset_D = torch.zeros_like(start_D, requires_grad=True)
    start_norm = start_D.norm()
    adam = torch.optim.Adam([offset_D], lr=settings.value_lr)
    before_kl_V = None
    for step in range(settings.value_steps):
        with torch.enable_grad():
            hidden_BTD = replay.hidden(offset_D)
            log_p_NTV = lm.logits(hidden_BTD[row_of, column_of]).log_softmax(-1)
            log_p_N = log_p_NTV.gather(-1, targets.expand(n, -1)[..., None])[..., 0].mean(-1).to(device)
            kl_V = lm.logits(hidden_BTD[n, ends[n]]).log_softmax(-1)
            if before_kl_V is None:
                before_kl_V = kl_V.detach()
            kl = torch.nn.functional.kl_div(before_kl_V, kl_V, log_target=True, reduction="sum").to(device)
            decay = settings.weight_decay * offset_D.norm() / start_norm**2
            loss = -log_p_N.mean() + settings.kl_weight * kl + decay
        if step == 0:
            first_nll = -float(log_p_N.detach().mean())
        if float(loss.detach()) < settings.stop_loss or step == settings.value_steps - 1:
            break
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            limit = settings.max_offset * start_norm
            if offset_D.norm() > limit:
                offset_D.mul_(limit / offset_D.norm())
    if step and not offset_D.detach().any():
        raise BadInput(f"an edit at block {replay.layer} cannot reach the prediction of {request.question!r}: no block "
                       "behind it moves the subject's change to the last token; choose lower blocks in method.layer or "
                       "method.layers")  # fmt: skip
    return offset_D.detach(), {
        "steps": step,
        "loss": float(loss.detach()),
        "kl": float(kl.detach()),
        "nll_before": first_nll,
        "nll_after": -float(log_p_N.detach().mean()),
        "offset_over_start": float(offset_D.detach().norm() / start_norm),
    }
