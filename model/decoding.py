"""Continues token rows in batches, greedily or by sampling; each row stops on its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import pad as pad_tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from afteredit.model.lm import LM
from afteredit.model.tensors import pad

Choose = Callable[[Tensor], Tensor]  # logits (B, V) -> ids (B,)
Done = Callable[[int, list[int]], bool]  # (row, ids continued so far) -> whether to stop this row


@dataclass(frozen=True)
class RowEnds:
    """Holds rows that were read to their ends: the logits after each, keys and values, and which columns (1) hold a
    token."""

    logits_BV: Tensor
    cache: DynamicCache
    mask_BT: Tensor


class GrowingLayer(DynamicLayer):
    """Holds keys and values with room for more columns, which are written in place; a DynamicLayer copies all columns
    at every token.  Rows of several caches stand together, padded on the right."""

    def __init__(self, layers: Sequence[DynamicLayer], room: int):
        """Takes the rows of all `layers`, which are empty afterwards, and adds `room` columns."""
        super().__init__()
        n_rows = sum(len(cast(Tensor, layer.keys)) for layer in layers)
        width = max(cast(Tensor, layer.keys).shape[2] for layer in layers)
        keys = cast(Tensor, layers[0].keys)
        self.lazy_initialization(keys, keys)
        self._with_room: list[Tensor] = []  # keys, values
        for name in ("keys", "values"):
            like = getattr(layers[0], name)
            all_BHTd = like.new_zeros(n_rows, like.shape[1], width + room, like.shape[3])
            start = 0
            for layer in layers:
                part_BHTd = getattr(layer, name)
                all_BHTd[start : start + len(part_BHTd), :, : part_BHTd.shape[2]] = part_BHTd
                start += len(part_BHTd)
                setattr(layer, name, None)
            self._with_room.append(all_BHTd)
        self._show(width)

    def _show(self, width: int) -> None:
        self.keys, self.values = (all_BHTd[:, :, :width] for all_BHTd in self._with_room)

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Adds the new columns and returns all keys and values."""
        n_cached = cast(Tensor, self.keys).shape[2]
        width = n_cached + key_states.shape[2]
        for all_BHTd, new_BHTd in zip(self._with_room, (key_states, value_states), strict=True):
            all_BHTd[:, :, n_cached:width] = new_BHTd
        self._show(width)
        return cast(Tensor, self.keys), cast(Tensor, self.values)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keeps these rows only."""
        width = cast(Tensor, self.keys).shape[2]
        self._with_room = [all_BHTd[indices.to(all_BHTd.device)] for all_BHTd in self._with_room]
        self._show(width)


def greedy(logits_BV: Tensor) -> Tensor:
    """Chooses the likeliest token of each row (B,)."""
    return logits_BV.argmax(-1)


def sampler(generator: torch.Generator, top_k: int | None = None) -> Choose:
    """Returns a choice that draws from the model's own distribution, or from its `top_k` likeliest tokens."""

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
    """Returns up to `n_tokens` more ids of each row.  Runs each prompt token once; a row that is done leaves the batch.

    Where no padding may stand in them, rows of one length are continued together, one length after another.
    """
    lengths = sorted(set(map(len, rows)))
    if len(lengths) > 1 and not lm.capabilities.may_pad(lengths[-1] + n_tokens):
        out: list[list[int]] = [[] for _ in rows]
        for length in lengths:
            places = [i for i, row in enumerate(rows) if len(row) == length]
            part_done = None if done is None else lambda i, ids, places=places: done(places[i], ids)
            continued = continue_rows(lm, [rows[i] for i in places], n_tokens, choose, part_done)
            for i, ids in zip(places, continued, strict=True):
                out[i] = ids
        return out
    ids_BT, mask_BT = pad(rows, "right")
    cache = DynamicCache()
    hidden_BTD = lm.forward(ids_BT, mask_BT, cache)
    last_B = mask_BT.sum(-1) - 1
    logits_BV = lm.logits(hidden_BTD[torch.arange(len(rows)), last_B])
    return decode(lm, [RowEnds(logits_BV, cache, mask_BT)], n_tokens, choose, done)


@torch.no_grad()
def decode(
    lm: LM, row_ends: Sequence[RowEnds], n_tokens: int, choose: Choose, done: Done | None = None
) -> list[list[int]]:
    """Returns up to `n_tokens` more ids of the rows of all `row_ends`, continued together; their caches are used up."""
    logits_BV, mask_BT, cache = _together(row_ends, n_tokens)
    out: list[list[int]] = [[] for _ in range(len(logits_BV))]
    alive = list(range(len(out)))
    for step in range(n_tokens):
        new_B = choose(logits_BV)
        going_on = []
        for position, (row, token) in enumerate(zip(alive, new_B.tolist(), strict=True)):
            out[row].append(token)
            if done is None or not done(row, out[row]):
                going_on.append(position)
        if not going_on or step == n_tokens - 1:
            break
        if len(going_on) < len(alive):
            positions = torch.tensor(going_on)
            cache.batch_select_indices(positions)
            alive, mask_BT = [alive[i] for i in going_on], mask_BT[positions]
            new_B = new_B[positions.to(new_B.device)]
        n_cached = mask_BT.shape[1]
        mask_BT = torch.cat([mask_BT, torch.ones_like(mask_BT[:, :1])], dim=1)
        hidden_B1D = lm.forward(new_B[:, None], mask_BT, cache, n_cached)
        logits_BV = lm.logits(hidden_B1D[:, 0])
    return out


def _together(row_ends: Sequence[RowEnds], n_tokens: int) -> tuple[Tensor, Tensor, DynamicCache]:
    """Returns logits (B, V), mask (B, T) and one cache with room for `n_tokens` more columns."""
    width = max(ends.mask_BT.shape[1] for ends in row_ends)
    mask_BT = torch.cat([pad_tensor(ends.mask_BT, (0, width - ends.mask_BT.shape[1])) for ends in row_ends])
    cache = DynamicCache()
    for layers in zip(*(cast(list[DynamicLayer], ends.cache.layers) for ends in row_ends), strict=True):
        cache.layers.append(GrowingLayer(layers, n_tokens))
    return torch.cat([ends.logits_BV for ends in row_ends]), mask_BT, cache
