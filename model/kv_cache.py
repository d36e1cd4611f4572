"""Takes caches of keys and values apart and puts them together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

KeysValues = tuple[Tensor, Tensor]  # of one block, both (B, heads, T, width of a head)


class FrozenLayer(DynamicLayer):
    """Holds cached keys and values that every call sees and none extends."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> KeysValues:
        """Returns the cached columns and the new ones after them; keeps only the cached ones."""
        keys, values = cast(Tensor, self.keys), cast(Tensor, self.values)
        return torch.cat([keys, key_states], dim=-2), torch.cat([values, value_states], dim=-2)


def keys_values(cache: DynamicCache) -> list[KeysValues]:
    """Returns the keys and values of each block."""
    return [(layer.keys, layer.values) for layer in cast(list[DynamicLayer], cache.layers)]  # type: ignore[misc]


def cache_of(blocks: Iterable[KeysValues], kind: type[DynamicLayer] = DynamicLayer) -> DynamicCache:
    """Returns a cache that holds the given keys and values, in layers of the given kind."""
    cache = DynamicCache()
    for keys, values in blocks:
        layer = kind()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
        cache.layers.append(layer)
    return cache


def cache_rows(cache: DynamicCache, rows_B: Tensor, kind: type[DynamicLayer] = DynamicLayer) -> DynamicCache:
    """Returns a new cache that holds copies of the given rows of another, in layers of the given kind."""
    blocks = ((keys[rows_B.to(keys.device)], values[rows_B.to(keys.device)]) for keys, values in keys_values(cache))
    return cache_of(blocks, kind)
