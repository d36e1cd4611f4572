"""Names a model in caches and run directories by all that decides what it says, unedited."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def fingerprint(model: nn.Module, tokenizer: Any, start_ids: Iterable[int], prompt: str) -> str:
    """Returns sixteen hex digits that name what decides the unedited model's answers: weights, tokenizer and how
    it is asked.

    Each parameter's bits are read as integers and summed along every row and every column.  Integers add up to the same
    on every device and in every order; one changed entry shows, and so do two columns that have changed places.
    """
    digest = hashlib.sha256(f"{list(start_ids)} {prompt} {tokenizer.chat_template}".encode())
    # the part before says how the tokenizer would cut and pad a batch, which every call sets anew
    digest.update(tokenizer.backend_tokenizer.to_str().partition('"added_tokens"')[2].encode())
    for name, parameter in model.named_parameters():
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        if parameter.device.type != "meta":
            bits = _as_integers(parameter.detach())
            for dim in (0, 1):
                digest.update(bits.sum(dim, dtype=torch.int64).cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _as_integers(parameter: Tensor) -> Tensor:
    """Returns the bits of a parameter as integers (rows, columns): a view where possible, eight bytes to an integer
    where rows divide into eights."""
    rows = parameter.reshape(len(parameter), -1) if parameter.ndim > 1 else parameter.reshape(1, -1)
    size = rows.element_size()
    if rows.shape[1] * size % 8:
        return rows.view({1: torch.int8, 2: torch.int16, 4: torch.int32}[size])
    in_place = rows.is_contiguous() and rows.storage_offset() * size % 8 == 0
    return (rows if in_place else rows.clone(memory_format=torch.contiguous_format)).view(torch.int64)
