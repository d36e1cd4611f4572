"""The plain way to optimise v*, that the shared-prefix one is held against, in results (tests) and in time (bench).

Frozen parameters, one padded forward pass over all prefixes, full logits, one edit at a time, the same steps.  The
first of them, at an offset of 0, also gives what stands there before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from afteredit.edit.ingredients.target_value import ValueSettings
from afteredit.edit.ingredients.value_prompts import value_prompts
from afteredit.edit.request import EditRequest
from afteredit.model.lm import LM, first, pad, wide


def plain_offset(
    lm: LM,
    request: EditRequest,
    contexts: Sequence[str],
    layer: int,
    settings: ValueSettings,
    *,
    stream: bool = False,
) -> tuple[Tensor, Tensor]:
    """(start_D, offset_D): of the MLP's output at the averaged key (ROME's v*), or of the bare prompt's residual
    `stream` behind the block (MEMIT's z)."""
    prompts = value_prompts(lm, request, contexts)
    n, target = len(contexts), torch.tensor(prompts.target)
    ids_BT, mask_BT = pad(prompts.rows, "right")
    rows_B, lasts_B, ends_B = (
        torch.arange(n + 1),
        torch.tensor(prompts.subject_lasts),
        torch.tensor(prompts.prompt_ends),
    )
    seen: dict[str, Tensor] = {}
    offset_D = lm.weights.W(lm.mlp_out_name(layer)).new_zeros(lm.widths(layer)[0]).requires_grad_()

    def add(_module: Any, _args: tuple, output: Tensor) -> Tensor:
        seen["values_BD"] = output[rows_B, lasts_B].detach()
        at_BT1 = torch.zeros_like(output[..., :1]).index_put((rows_B, lasts_B), torch.ones_like(output[0, 0, :1]))
        return output + (at_BT1 * offset_D).to(output.dtype)

    def tap(_module: Any, _args: tuple, output: Any) -> None:
        seen["streams_BD"] = first(output)[rows_B, lasts_B].detach()

    def log_p_BTV() -> Tensor:
        logits = lm.model(input_ids=ids_BT.to(lm.device), attention_mask=mask_BT.to(lm.device), use_cache=False).logits
        return wide(logits).log_softmax(-1)

    hooks = [lm.mlp_out(layer).register_forward_hook(add), lm.anatomy.blocks[layer].register_forward_hook(tap)]
    try:
        adam = torch.optim.Adam([offset_D], lr=settings.value_lr)
        for step in range(settings.value_steps):
            log_p = log_p_BTV()
            columns_NT = ends_B[:n, None] + torch.arange(len(target))[None]
            nll = -log_p[rows_B[:n, None], columns_NT, target.expand(n, -1)].mean()
            after_V = log_p[n, ends_B[n]]
            if step == 0:
                before_V = after_V.detach()
                streams_BD, values_BD = wide(seen["streams_BD"]), wide(seen["values_BD"])
                start_D = streams_BD[list(contexts).index("")] if stream else values_BD[:n].mean(0)
            kl = (after_V.exp() * (after_V - before_V)).sum()
            decay = settings.weight_decay * offset_D.norm() / start_D.norm() ** 2
            loss = nll + settings.kl_weight * kl + decay
            if float(loss.detach()) < settings.stop_loss or step == settings.value_steps - 1:
                break
            adam.zero_grad()
            loss.backward()
            adam.step()
            with torch.no_grad():
                offset_D.mul_(min(1.0, float(settings.max_offset * start_D.norm() / offset_D.norm())))
    finally:
        for hook in hooks:
            hook.remove()
    return start_D, offset_D.detach()
