"""The plain way to continue rows: for models whose keys and values cannot be continued, every row runs whole and alone.

Columns of keys and values stand for tokens, so the cache of such a model holds the tokens themselves, in the place of
one block's keys.  Code that selects, joins or pads the rows of caches then does so to the tokens, and needs no branch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import DynamicCache


def forward_row_by_row(run: Callable[..., Tensor], ids_BT: Tensor, mask_BT: Tensor, cache: DynamicCache) -> Tensor:
    """Returns what `LM.forward` does with a cache: hidden states (B, T, D), zeros where the mask is 0.

    `run` gives the hidden states (1, T, D) of one row.
    """
    tokens_B1P1, _ = cache.update(ids_BT[:, None, :, None], ids_BT[:, None, :, None], 0)
    tokens_BP, n_cached = tokens_B1P1[:, 0, :, 0], mask_BT.shape[1] - ids_BT.shape[1]
    rows = []
    for tokens_P, mask_P in zip(tokens_BP, mask_BT.bool(), strict=True):
        alone_TD = run(tokens_P[mask_P][None], mask_P[mask_P].long()[None])[0]
        hidden_PD = alone_TD.new_zeros(len(mask_P), alone_TD.shape[-1])
        hidden_PD[mask_P.to(alone_TD.device)] = alone_TD
        rows.append(hidden_PD[n_cached:])
    return torch.stack(rows)
