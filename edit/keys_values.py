"""Caches of keys and values, taken apart and put together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


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
