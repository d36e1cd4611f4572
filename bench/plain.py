"""Optimises v* and z the plain way; tests compare the program's results with it, bench/edits.py its seconds.

Parameters are frozen; one padded forward pass runs all prefixes with full logits, one edit at a time, for the same
steps.  The first pass, at an offset of 0, also gives what stands there before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from afteredit.edit.ingredients.value_prompts import value_rows
from afteredit.edit.ingredients.value_settings import KlAt, ValueSettings
from afteredit.edit.request import EditRequest
from afteredit.model.hooks import hooked
from afteredit.model.lm import LM
from afteredit.model.tensors import first, pad, wide


def plain_offset(
    lm: LM, request: EditRequest, contexts: Sequence[str], layer: int, settings: ValueSettings, *, stream: bool = False
) -> tuple[Tensor, Tensor]:
    """Returns (start_D, offset_D).  The start is the MLP's output at the averaged key (ROME's v*), or with `stream`
    the residual stream after the block at the bare prompt (MEMIT's z)."""
    rows = _Rows(lm, request, contexts, layer, settings.kl_at)
    hooks = {lm.anatomy.blocks[layer]: rows.move_stream} if stream else {lm.mlp_out(layer): rows.add_offset}
    with hooked(hooks):
        adam = torch.optim.Adam([rows.offset_D], lr=settings.value_lr)
        for step in range(settings.value_steps):
            nll, after_V = rows.nll_and_log_p()
            if step == 0:
                before_V = after_V.detach()
                start_D = rows.streams_BD[list(contexts).index("")] if stream else rows.values_BD[:-1].mean(0)
            kl = (after_V.exp() * (after_V - before_V)).sum()
            decay = settings.weight_decay * rows.offset_D.norm() / start_D.norm() ** 2
            loss = nll + settings.kl_weight * kl + decay
            if float(loss.detach()) < settings.stop_loss or step == settings.value_steps - 1:
                break
            adam.zero_grad()
            loss.backward()
            adam.step()
            with torch.no_grad():
                rows.offset_D.mul_(min(1.0, float(settings.max_offset * start_D.norm() / rows.offset_D.norm())))
    return start_D, rows.offset_D.detach()


class _Rows:
    """Holds one request's prompt under every prefix, then its KL prompt; one offset is added at each subject's end."""

    values_BD: Tensor  # the MLP's output there, without the offset
    streams_BD: Tensor  # the residual stream there, after the block

    def __init__(self, lm: LM, request: EditRequest, contexts: Sequence[str], layer: int, kl_at: KlAt):
        rows = value_rows(lm, request, contexts, kl_at)
        self.lm, self.n = lm, len(contexts)
        self.target = torch.tensor(rows.target)
        self.ids_BT, self.mask_BT = pad(rows.ids, "right")
        self.rows_B = torch.arange(self.n + 1)
        self.lasts_B, self.ends_B = torch.tensor(rows.subject_lasts), torch.tensor(rows.prompt_ends)
        self.offset_D = lm.weights.W(lm.mlp_out_name(layer)).new_zeros(lm.widths(layer)[0]).requires_grad_()

    def add_offset(self, _module: Any, _args: tuple, output: Tensor) -> Tensor:
        """Adds the offset to the MLP's output; a forward hook."""
        self.values_BD = wide(output[self.rows_B, self.lasts_B].detach())
        return self._moved(output)

    def move_stream(self, _module: Any, _args: tuple, output: Any) -> Any:
        """Adds the offset to the residual stream; a forward hook of the block."""
        self.streams_BD = wide(first(output)[self.rows_B, self.lasts_B].detach())
        moved = self._moved(first(output))
        return (moved, *output[1:]) if isinstance(output, tuple) else moved

    def _moved(self, output: Tensor) -> Tensor:
        at_BT1 = torch.zeros_like(output[..., :1])
        at_BT1 = at_BT1.index_put((self.rows_B, self.lasts_B), torch.ones_like(output[0, 0, :1]))
        return output + (at_BT1 * self.offset_D).to(output.dtype)

    def nll_and_log_p(self) -> tuple[Tensor, Tensor]:
        """Runs all rows.  Returns −log p(target), mean over prefixes and tokens, and log p after the KL prompt (V,)."""
        ids_BT, mask_BT = self.ids_BT.to(self.lm.device), self.mask_BT.to(self.lm.device)
        logits_BTV = self.lm.model(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False).logits
        log_p_BTV = wide(logits_BTV).log_softmax(-1)
        columns_NT = self.ends_B[: self.n, None] + torch.arange(len(self.target))[None]
        nll = -log_p_BTV[self.rows_B[: self.n, None], columns_NT, self.target.expand(self.n, -1)].mean()
        return nll, log_p_BTV[self.n, self.ends_B[self.n]]
