"""Continuing token rows, batched: greedy or sampled, each row stopped on its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from afteredit.model.lm import LM
from afteredit.model.tensors import pad

Choose = Callable[[Tensor], Tensor]  # logits (B, V) -> ids (B,)
Done = Callable[[int, list[int]], bool]  # (row, ids continued so far) -> stop this row?


@dataclass(frozen=True)
class Prompts:
    """Rows read to their ends: logits behind each, keys and values, and the columns (1) that hold a token."""

    logits_BV: Tensor
    cache: DynamicCache
    mask_BT: Tensor


class Roomy(DynamicLayer):
    """Keys and values with `room` columns to spare: the next ones are written in place, where a DynamicLayer copies
    all of them at every token.  Rows of several caches stand together, padded on the right."""

    def __init__(self, layers: Sequence[DynamicLayer], room: int):
        """Uses the layers up."""
        super().__init__()
        n_rows = sum(len(cast(Tensor, layer.keys)) for layer in layers)
        width = max(cast(Tensor, layer.keys).shape[2] for layer in layers)
        first = cast(Tensor, layers[0].keys)
        self.lazy_initialization(first, first)
        self._all: list[Tensor] = []  # keys, values
        for name in ("keys", "values"):
            like = getattr(layers[0], name)
            whole_BHTd = like.new_zeros(n_rows, like.shape[1], width + room, like.shape[3])
            at = 0
            for layer in layers:
                part_BHTd = getattr(layer, name)
                whole_BHTd[at : at + len(part_BHTd), :, : part_BHTd.shape[2]] = part_BHTd
                at += len(part_BHTd)
                setattr(layer, name, None)
            self._all.append(whole_BHTd)
        self._show(width)

    def _show(self, width: int) -> None:
        self.keys, self.values = (whole_BHTd[:, :, :width] for whole_BHTd in self._all)

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        past = cast(Tensor, self.keys).shape[2]
        width = past + key_states.shape[2]
        for whole_BHTd, new_BHTd in zip(self._all, (key_states, value_states), strict=True):
            whole_BHTd[:, :, past:width] = new_BHTd
        self._show(width)
        return cast(Tensor, self.keys), cast(Tensor, self.values)

    def batch_select_indices(self, indices: Tensor) -> None:
        width = cast(Tensor, self.keys).shape[2]
        self._all = [whole_BHTd[indices.to(whole_BHTd.device)] for whole_BHTd in self._all]
        self._show(width)


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
    """Up to `n_tokens` more ids of each row.  Computes each prompt token once; a row that is done leaves the batch.

    Where no padding may stand in them, rows of one length are continued together, one length after another."""
    lengths = sorted(set(map(len, rows)))
    if len(lengths) > 1 and not lm.capabilities.may_pad(lengths[-1] + n_tokens):
        out: list[list[int]] = [[] for _ in rows]
        for length in lengths:
            own = [i for i, row in enumerate(rows) if len(row) == length]
            ended = None if done is None else lambda i, ids, own=own: done(own[i], ids)
            for i, ids in zip(own, continue_rows(lm, [rows[i] for i in own], n_tokens, choose, ended), strict=True):
                out[i] = ids
        return out
    ids_BT, mask_BT = pad(rows, "right")
    cache = DynamicCache()
    hidden_BTD = lm.forward(ids_BT, mask_BT, cache)
    last_B = mask_BT.sum(-1) - 1
    logits_BV = lm.logits(hidden_BTD[torch.arange(len(rows)), last_B])
    return decode(lm, [Prompts(logits_BV, cache, mask_BT)], n_tokens, choose, done)


@torch.no_grad()
def decode(
    lm: LM, prompts: Sequence[Prompts], n_tokens: int, choose: Choose, done: Done | None = None
) -> list[list[int]]:
    """Continues the rows of all `prompts` together, which it uses up."""
    logits_BV, mask_BT, cache = _together(prompts, n_tokens)
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
            cache.batch_select_indices(kept)
            alive, mask_BT, new_B = [alive[i] for i in keep], mask_BT[kept], new_B[kept.to(new_B.device)]
        past = mask_BT.shape[1]
        mask_BT = torch.cat([mask_BT, torch.ones_like(mask_BT[:, :1])], dim=1)
        hidden_B1D = lm.forward(new_B[:, None], mask_BT, cache, past)
        logits_BV = lm.logits(hidden_B1D[:, 0])
    return out


def _together(prompts: Sequence[Prompts], n_tokens: int) -> tuple[Tensor, Tensor, DynamicCache]:
    """Logits (B, V), mask (B, T) and one cache with room for `n_tokens` more columns."""
    width = max(one.mask_BT.shape[1] for one in prompts)
    mask_BT = torch.cat([torch.nn.functional.pad(one.mask_BT, (0, width - one.mask_BT.shape[1])) for one in prompts])
    cache = DynamicCache()
    for layers in zip(*(cast(list[DynamicLayer], one.cache.layers) for one in prompts), strict=True):
        cache.layers.append(Roomy(layers, n_tokens))
    return torch.cat([one.logits_BV for one in prompts]), mask_BT, cache
