"""The plain path of reading on: for models whose keys and values cannot be continued, every row runs whole and alone.

Columns of keys and values stand for tokens, so a cache of such a model holds the tokens themselves, in the place of one
block's keys.  Whatever selects, joins or pads the rows of caches then does so to these, and asks for nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import DynamicCache

if TYPE_CHECKING:
    from afteredit.model.lm import LM


@torch.no_grad()
def continues(lm: LM) -> bool:
    """Does the model, behind cached keys and values and beside padding, give what it gives on each row alone?"""
    from afteredit.model.lm import pad

    rows, cuts = [[1, 2, 3, 1], [3, 2, 1]], [2, 1]
    cache = DynamicCache()
    before_ids, before_mask = pad([row[:cut] for row, cut in zip(rows, cuts, strict=True)], "right")
    ids_BT, own_mask_BT = pad([row[cut:] for row, cut in zip(rows, cuts, strict=True)], "right")
    lm.run_decoder(before_ids, before_mask, cache)
    hidden_BTD = lm.run_decoder(ids_BT, torch.cat([before_mask, own_mask_BT], dim=1), cache, before_ids.shape[1])
    for row, cut, found_TD in zip(rows, cuts, hidden_BTD, strict=True):
        if not alike(found_TD, lm.run_decoder(*pad([row], "right"))[0, cut:]):
            return False
    return True


def alike(found_TD: Tensor, own_TD: Tensor) -> bool:
    """To half the digits, as far as `own_TD` goes?  Not where either is no number."""
    half_the_digits = max(torch.finfo(own_TD.dtype).eps, torch.finfo(torch.float32).eps) ** 0.5
    return bool((found_TD[: len(own_TD)] - own_TD).abs().max() <= half_the_digits * own_TD.abs().max())


def forward_whole(lm: LM, ids_BT: Tensor, mask_BT: Tensor, cache: DynamicCache) -> Tensor:
    """As `LM.forward` with a cache: hidden states (B, T, D), zeros where the mask is."""
    tokens_B1P1, _ = cache.update(ids_BT[:, None, :, None], ids_BT[:, None, :, None], 0)
    tokens_BP, behind = tokens_B1P1[:, 0, :, 0], mask_BT.shape[1] - ids_BT.shape[1]
    rows = []
    for tokens_P, mask_P in zip(tokens_BP, mask_BT.bool(), strict=True):
        own_D = lm.run_decoder(tokens_P[mask_P][None], mask_P[mask_P].long()[None])[0]
        hidden_PD = own_D.new_zeros(len(mask_P), own_D.shape[-1])
        hidden_PD[mask_P.to(own_D.device)] = own_D
        rows.append(hidden_PD[behind:])
    return torch.stack(rows)
