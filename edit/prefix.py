"""What an offset at the subject's last token cannot change is computed once.

By causality an offset added to the MLP output of block L at position s moves neither anything before s nor anything
below L.  So the keys and values of all positions before s are computed once, hidden states entering block L at the
positions from s on are computed once, and each step of an optimisation runs blocks L, L+1, … on those few positions.
The mathematics is that of the full forward pass (a test holds the two against each other).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from afteredit.edit.lm import LM, first, pad


class FrozenLayer(DynamicLayer):
    """Past keys and values that every call sees and none extends."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        past_keys, past_values = cast(Tensor, self.keys), cast(Tensor, self.values)
        return torch.cat([past_keys, key_states], dim=-2), torch.cat([past_values, value_states], dim=-2)


def keys_values(cache: DynamicCache) -> list[tuple[Tensor, Tensor]]:
    """Per block, both (B, heads, T, width of a head)."""
    return [(layer.keys, layer.values) for layer in cast(list[DynamicLayer], cache.layers)]  # type: ignore[misc]


def cache_of(pairs: Iterable[tuple[Tensor, Tensor]], kind: type[DynamicLayer] = DynamicLayer) -> DynamicCache:
    """A cache that holds the given keys and values, in layers of the given kind."""
    cache = DynamicCache()
    for keys, values in pairs:
        layer = kind()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
        cache.layers.append(layer)
    return cache


class Replay:
    """Rows of token ids cut at their subject's last token, ready to be run again and again from block `layer` up.

    Column 0 of everything here is the subject's last token.  `key_BF` and `value_BD` are the input and output of the
    block's MLP output matrix there.
    """

    @torch.no_grad()
    def __init__(self, lm: LM, rows: Sequence[Sequence[int]], subject_lasts: Sequence[int], layer: int):
        self.lm, self.layer = lm, layer
        before = [row[:s] for row, s in zip(rows, subject_lasts, strict=True)]
        after = [row[s:] for row, s in zip(rows, subject_lasts, strict=True)]
        past = max(len(row) for row in before)
        after_ids_BT, after_mask_BT = pad(after, "right")
        mask_BT, cache = after_mask_BT, None
        if past:
            before_ids_BP, before_mask_BP = pad(before, "left")
            cache = DynamicCache()
            lm.forward(before_ids_BP, before_mask_BP, cache)
            cache = cache_of(keys_values(cache), FrozenLayer)
            mask_BT = torch.cat([before_mask_BP, after_mask_BT], dim=1)
        self._calls: list[tuple[tuple, dict]] = []
        hooks = [block.register_forward_pre_hook(self._record, with_kwargs=True) for block in lm.anatomy.blocks[layer:]]
        hooks.append(lm.mlp_out(layer).register_forward_hook(self._record_mlp))
        try:
            lm.forward(after_ids_BT, mask_BT, cache, past)
        finally:
            for hook in hooks:
                hook.remove()
        self._hidden_BTD = self._calls[0][0][0]

    def _record(self, _module: Any, args: tuple, kwargs: dict) -> None:
        self._calls.append((args, kwargs))

    def _record_mlp(self, _module: Any, args: tuple, output: Tensor) -> None:
        self.key_BF, self.value_BD = args[0][:, 0].clone(), output[:, 0].clone()

    def hidden(self, offset: Tensor) -> Tensor:
        """Normalised hidden states (B, T, D) with `offset` ((D,) or (B, D)) added to the MLP output at column 0."""

        def add(_module: Any, _args: tuple, output: Tensor) -> Tensor:
            return torch.cat([output[:, :1] + offset.to(output.dtype).view(-1, 1, output.shape[-1]), output[:, 1:]], 1)

        hook = self.lm.mlp_out(self.layer).register_forward_hook(add)
        hidden_BTD = self._hidden_BTD
        try:
            for block, (args, kwargs) in zip(self.lm.anatomy.blocks[self.layer :], self._calls, strict=True):
                hidden_BTD = first(block(hidden_BTD, *args[1:], **kwargs))
        finally:
            hook.remove()
        return self.lm.anatomy.final_norm(hidden_BTD)
