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


def of_rows(value: Any, rows: Tensor, n_rows: int, caches: dict[int, DynamicCache]) -> Any:
    """`value` with the given ones of its `n_rows` rows, in every tensor that has rows; `caches` are those done."""
    if isinstance(value, Tensor):  # one dimension: a count of columns; one row: shared by all
        return value[rows.to(value.device)] if value.ndim > 1 and len(value) == n_rows else value
    if isinstance(value, dict):
        return {key: of_rows(inner, rows, n_rows, caches) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(of_rows(inner, rows, n_rows, caches) for inner in value)
    if isinstance(value, DynamicCache):
        if id(value) not in caches:
            pairs = (of_rows(pair, rows, n_rows, caches) for pair in keys_values(value))
            caches[id(value)] = cache_of(pairs, FrozenLayer)
        return caches[id(value)]
    return value
