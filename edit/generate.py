"""Continuing token rows, batched: greedy or sampled, each row stopped on its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from afteredit.edit.lm import LM, pad

Choose = Callable[[Tensor], Tensor]  # logits (B, V) -> ids (B,)
Done = Callable[[int, list[int]], bool]  # (row, ids continued so far) -> stop this row?


def greedy(logits_BV: Tensor) -> Tensor:
    return logits_BV.argmax(-1)


def sampler(generator: torch.Generator, top_k: int | None = None) -> Choose:
    """Draws from the model's own distribution, or from its `top_k` likeliest tokens."""

    def choose(logits_BV: Tensor) -> Tensor:
        if top_k is not None:
            worst_B1 = logits_BV.topk(top_k).values[:, -1:]
            logits_BV = logits_BV.masked_fill(logits_BV < worst_B1, -torch.inf)
        # drawn on the CPU: one seed gives one text on every device kind whose logits agree
        cumulated_BV = logits_BV.softmax(-1).cumsum(-1).cpu()
        drawn_B1 = torch.rand(len(logits_BV), 1, generator=generator) * cumulated_BV[:, -1:]
        return torch.searchsorted(cumulated_BV, drawn_B1, right=True)[:, 0].clamp(max=logits_BV.shape[-1] - 1)

    return choose


@torch.no_grad()
def continue_rows(
    lm: LM, rows: Sequence[Sequence[int]], n_tokens: int, choose: Choose, done: Done | None = None
) -> list[list[int]]:
    """Up to `n_tokens` more ids of each row.  Computes each prompt token once; a row that is done leaves the batch."""
    ids_BT, mask_BT = pad(rows, "right")
    cache = DynamicCache()
    hidden_BTD = lm.forward(ids_BT, mask_BT, cache)
    last_B = mask_BT.sum(-1) - 1
    logits_BV = lm.logits(hidden_BTD[torch.arange(len(rows)), last_B])
    return decode(lm, logits_BV, mask_BT, cache, n_tokens, choose, done)


@torch.no_grad()
def decode(
    lm: LM,
    logits_BV: Tensor,
    mask_BT: Tensor,
    cache: DynamicCache,
    n_tokens: int,
    choose: Choose,
    done: Done | None = None,
) -> list[list[int]]:
    """Continues rows whose prompts are in `cache` (mask (B, T): 1 where a column holds a token); uses the cache up."""
    out: list[list[int]] = [[] for _ in range(len(logits_BV))]
    alive = list(range(len(out)))
    for step in range(n_tokens):
        new_B = choose(logits_BV)
        keep = []
        for position, (row, token) in enumerate(zip(alive, new_B.tolist(), strict=True)):
            out[row].append(token)
            if done is None or not done(row, out[row]):
                keep.append(position)
        if not keep or step == n_tokens - 1:
            break
        if len(keep) < len(alive):
            kept = torch.tensor(keep)
            for layer in cast(list[DynamicLayer], cache.layers):  # a sharded model's blocks are on several devices
                layer.batch_select_indices(kept.to(cast(Tensor, layer.keys).device))
            alive, mask_BT, new_B = [alive[i] for i in keep], mask_BT[kept], new_B[kept.to(new_B.device)]
        past = mask_BT.shape[1]
        mask_BT = torch.cat([mask_BT, torch.ones_like(mask_BT[:, :1])], dim=1)
        hidden_B1D = lm.forward(new_B[:, None], mask_BT, cache, past)
        logits_BV = lm.logits(hidden_B1D[:, 0])
    return out
