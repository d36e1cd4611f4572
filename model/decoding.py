"""Continues token rows in batches, greedily or by sampling; each row stops on its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad as pad_tensor
from transformers import DynamicCache

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


def greedy(logits_BV: Tensor) -> Tensor:
    """Chooses the likeliest token of each row (B,)."""
    return logits_BV.argmax(-1)


def sampler(generator: torch.Generator, top_k: int | None = None) -> Choose:
    """Returns a choice that draws from the model's own distribution, or from its `top_k` likeliest tokens."""
    return drawn_by(lambda n_rows: torch.rand(n_rows, generator=generator), top_k)


def drawn_by(draw: Callable[[int], Tensor], top_k: int | None = None) -> Choose:
    """Returns the same choice for numbers (B,) in [0, 1), one for each row, that `draw(B)` gives on the CPU."""

    def choose(logits_BV: Tensor) -> Tensor:
        if top_k is not None:
            worst_B1 = logits_BV.topk(top_k).values[:, -1:]
            logits_BV = logits_BV.masked_fill(logits_BV < worst_B1, -torch.inf)
        # drawn on the CPU: one seed gives one text on every device kind whose logits agree
        cumulated_BV = logits_BV.softmax(-1).cumsum(-1).cpu()
        drawn_B1 = draw(len(logits_BV))[:, None] * cumulated_BV[:, -1:]
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
    """Returns up to `n_tokens` more ids of the rows of all `row_ends`, continued together; their caches are used up.

    A row ends early where it fills what the model can read.
    """
    joined = row_ends[0] if len(row_ends) == 1 else _together(row_ends)
    logits_BV, mask_BT, cache = joined.logits_BV, joined.mask_BT, joined.cache
    out: list[list[int]] = [[] for _ in range(len(logits_BV))]
    alive = list(range(len(out)))
    room = [(lm.max_tokens or math.inf) - n_read for n_read in mask_BT.sum(-1).tolist()]
    for step in range(n_tokens):
        new_B = choose(logits_BV)
        going_on = []
        for position, (row, token) in enumerate(zip(alive, new_B.tolist(), strict=True)):
            out[row].append(token)
            if len(out[row]) <= room[row] and (done is None or not done(row, out[row])):
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


def _together(row_ends: Sequence[RowEnds]) -> RowEnds:
    """Returns the rows of all `row_ends`, padded on the right; the first cache takes the others' keys and values."""
    width = max(ends.mask_BT.shape[1] for ends in row_ends)
    mask_BT = torch.cat([pad_tensor(ends.mask_BT, (0, width - ends.mask_BT.shape[1])) for ends in row_ends])
    for layers in zip(*(ends.cache.layers for ends in row_ends), strict=True):
        for name in ("keys", "values"):
            parts = [getattr(layer, name) for layer in layers]
            joined_BHTd = torch.cat([pad_tensor(part, (0, 0, 0, width - part.shape[2])) for part in parts])
            for layer in layers:
                setattr(layer, name, None)  # frees the memory of this layer before the next is joined
            setattr(layers[0], name, joined_BHTd)
    return RowEnds(torch.cat([ends.logits_BV for ends in row_ends]), row_ends[0].cache, mask_BT)
