"""Small operations on tensors that every wing needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def wide(values: Tensor) -> Tensor:
    """Returns the values in float32, or as they are where they are float64."""
    return values if values.dtype == torch.float64 else values.float()


def first(output: Any) -> Tensor:
    """Returns a block's hidden states: new ones return the tensor, older ones a tuple or list that starts with it."""
    return output[0] if isinstance(output, tuple | list) else output


def pad(rows: Sequence[Sequence[int]], side: str) -> tuple[Tensor, Tensor]:
    """Returns (B, T) token ids and mask (1 = token) of rows padded on the `side`.  No model looks at the padding id."""
    width = max(len(row) for row in rows)
    ids_BT = torch.zeros(len(rows), width, dtype=torch.long)
    mask_BT = torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        columns = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        ids_BT[i, columns] = torch.tensor(row, dtype=torch.long)
        mask_BT[i, columns] = 1
    return ids_BT, mask_BT


def nearly_equal(values_TD: Tensor, expected_TD: Tensor) -> bool:
    """Returns whether the first rows of `values_TD` equal `expected_TD` to half of the digits that its dtype (or
    float32, where that is coarser) holds.  NaN equals nothing."""
    half_the_digits = max(torch.finfo(expected_TD.dtype).eps, torch.finfo(torch.float32).eps) ** 0.5
    difference_TD = values_TD[: len(expected_TD)] - expected_TD
    return bool(difference_TD.abs().max() <= half_the_digits * expected_TD.abs().max())
