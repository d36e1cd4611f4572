"""A model's name in caches and run directories: all that decides what it says, unedited, in sixteen hex digits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def fingerprint(model: nn.Module, tokenizer: Any, start_ids: Iterable[int], prompt: str) -> str:
    """Names all that decides what the unedited model says: its weights, its tokenizer and how it is asked.

    Of each parameter, its bits taken for integers, the sums along every row and every column: integers add up to the
    same on every device and in every order, one changed entry shows, and so do columns that have changed places.
    """
    digest = hashlib.sha256(f"{list(start_ids)} {prompt} {tokenizer.chat_template}".encode())
    # how the tokenizer would cut and pad a batch stands in front: every call sets it anew
    digest.update(tokenizer.backend_tokenizer.to_str().partition('"added_tokens"')[2].encode())
    for name, parameter in model.named_parameters():
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        if parameter.device.type != "meta":
            bits = _as_integers(parameter.detach())
            for dim in (0, 1):
                digest.update(bits.sum(dim, dtype=torch.int64).cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _as_integers(parameter: Tensor) -> Tensor:
    """(rows, columns) of its bits, eight bytes to an integer where rows divide into them: a view where that is one."""
    rows = parameter.reshape(len(parameter), -1) if parameter.ndim > 1 else parameter.reshape(1, -1)
    size = rows.element_size()
    if rows.shape[1] * size % 8:
        return rows.view({1: torch.int8, 2: torch.int16, 4: torch.int32}[size])
    in_place = rows.is_contiguous() and rows.storage_offset() * size % 8 == 0
    return (rows if in_place else rows.clone(memory_format=torch.contiguous_format)).view(torch.int64)
