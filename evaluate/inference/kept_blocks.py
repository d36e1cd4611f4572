"""Keeps the output of the blocks that editing cannot change, those below the lowest edited one.

Edits change MLP output matrices, and constraints and views change the same ones, so everything below the lowest of them
is the unedited model's at every checkpoint.  The hidden states that leave those blocks are kept in CPU memory, batch by
batch; at a later checkpoint the same batch runs the blocks above alone.  The batches stay as they were, so the numbers
are those of the whole pass, to the bit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from afteredit.model.hooks import hooked
from afteredit.model.kv_cache import keys_values
from afteredit.model.lm import LM
from afteredit.model.tensors import first

log = logging.getLogger(__name__)

Forward = Callable[[Tensor, Tensor, DynamicCache, int], Tensor]  # as `LM.forward`: ids, mask, cache, columns before


@dataclass(frozen=True)
class KeptPass:
    """Holds what one forward pass left below the lowest edited block.

    `entering_BTD`: the hidden states that enter that block.  `keys_values`: of each block below it the keys and values
    of the new columns, where passes read them that are not kept together with this one.
    """

    entering_BTD: Tensor
    keys_values: list[tuple[Tensor, Tensor]] | None

    @property
    def n_bytes(self) -> int:
        tensors = [self.entering_BTD, *(tensor for pair in self.keys_values or [] for tensor in pair)]
        return sum(tensor.nbytes for tensor in tensors)


class KeptBlocks:
    """Keeps passes in up to `gib` of memory.

    The first ones stay, since every checkpoint makes the same passes in the same order.
    """

    def __init__(self, lm: LM, gib: float):
        self.lm, self.gib = lm, gib
        self.n_bytes = 0
        self._passes: dict[Hashable, list[KeptPass]] = {}
        self._block = 0  # the lowest edited one, below which everything is kept; 0: nothing is kept
        self._full = False
        self._unable = gib <= 0 or not lm.capabilities.reads_on_from_cache

    @contextmanager
    def forward_of(self, batch: Hashable, *, continued: bool = False) -> Iterator[Forward]:
        """Yields the forward pass with which to read `batch`, which must name all that decides the passes made inside.

        `continued`: other passes than these read on after the first of them, and need its keys and values.
        """
        self._follow_edits()
        passes = self._passes.get(batch)
        if not self._block or (passes is None and self._full):
            yield self.lm.forward
        elif passes is not None:
            yield _Replay(self.lm, self._block, passes).forward
        else:
            recording = _Recording(self.lm, self._block, continued)
            yield recording.forward
            self._keep(batch, recording.passes)  # not reached after an exception: only whole batches are kept

    def _keep(self, batch: Hashable, passes: list[KeptPass]) -> None:
        n_bytes = self.n_bytes + sum(kept_pass.n_bytes for kept_pass in passes)
        if n_bytes > self.gib * 2**30:
            self._full = True
            log.info("speed.cache_gib=%g is full: what is measured beyond it runs all blocks at every checkpoint",
                     self.gib)  # fmt: skip
            return
        self._passes[batch], self.n_bytes = passes, n_bytes

    def _follow_edits(self) -> None:
        """Starts anew when a lower block is edited than before."""
        block = 0 if self._unable else lowest_edited(self.lm)
        if block == self._block:
            return
        self._passes, self._block, self.n_bytes, self._full = {}, block, 0, False
        if block and not can_start_at(self.lm, block):
            log.info("%s: its blocks cannot be run from the lowest edited one alone; all are run at every checkpoint",
                     type(self.lm.model).__name__)  # fmt: skip
            self._block, self._unable = 0, True


class _Recording:
    """Runs all blocks and keeps what the lower ones leave, pass by pass."""

    def __init__(self, lm: LM, block: int, continued: bool):
        self.lm, self.block, self.continued = lm, block, continued
        self.passes: list[KeptPass] = []

    def forward(self, ids_BT: Tensor, mask_BT: Tensor, cache: DynamicCache, past: int) -> Tensor:
        hidden_BTD, entering_BTD = forward_and_entering(self.lm, self.block, ids_BT, mask_BT, cache, past)
        new_pairs = None
        if self.continued and not self.passes:
            lower = keys_values(cache)[: self.block]
            new_pairs = [(_on_cpu(keys[:, :, past:]), _on_cpu(values[:, :, past:])) for keys, values in lower]
        self.passes.append(KeptPass(_on_cpu(entering_BTD), new_pairs))
        return hidden_BTD


class _Replay:
    """Runs the upper blocks alone, on what was kept of the same passes in the same order."""

    def __init__(self, lm: LM, block: int, passes: Sequence[KeptPass]):
        self.lm, self.block, self._passes = lm, block, iter(passes)

    def forward(self, ids_BT: Tensor, mask_BT: Tensor, cache: DynamicCache, past: int) -> Tensor:
        kept_pass = next(self._passes)
        entering_BTD = kept_pass.entering_BTD.to(self.lm.device)
        hidden_BTD = self.lm.forward_from(self.block, entering_BTD, ids_BT, mask_BT, cache, past)
        for index in range(self.block):
            layer = cast(DynamicLayer, cache.layers[index])
            if kept_pass.keys_values is not None:
                keys, values = kept_pass.keys_values[index]
                layer.update(keys.to(self.lm.device), values.to(self.lm.device))
            else:  # no block reads these columns, but the first layer tells the length of the cache
                length_BHTd = entering_BTD.new_zeros(1, 1, 1, 1).expand(len(ids_BT), 1, mask_BT.shape[1], 1)
                layer.lazy_initialization(length_BHTd, length_BHTd)
                layer.keys = layer.values = length_BHTd
        return hidden_BTD


def lowest_edited(lm: LM) -> int:
    """Returns the lowest block with an edited matrix; 0 where there is none, or where another matrix is edited."""
    layers = {name: layer for layer, name in enumerate(lm.anatomy.mlp_out_names)}
    return min((layers.get(name, 0) for name in lm.weights.base), default=0)


@torch.no_grad()
def can_start_at(lm: LM, block: int) -> bool:
    """Tells whether the model, on one device, gives the same from `block` up alone as it does as a whole."""
    if len({parameter.device for parameter in lm.model.parameters()}) > 1:
        return False
    ids_BT = torch.tensor([[1, 2, 3]])
    mask_BT = torch.ones_like(ids_BT)
    whole_BTD, entering_BTD = forward_and_entering(lm, block, ids_BT, mask_BT, DynamicCache(), 0)
    return torch.equal(lm.forward_from(block, entering_BTD, ids_BT, mask_BT, DynamicCache(), 0), whole_BTD)


def forward_and_entering(
    lm: LM, block: int, ids_BT: Tensor, mask_BT: Tensor, cache: DynamicCache, past: int
) -> tuple[Tensor, Tensor]:
    """Returns `lm.forward`, and the hidden states that enter `block` on the way."""
    outputs: list[Tensor] = []
    with hooked({lm.anatomy.blocks[block - 1]: lambda _m, _i, output: outputs.append(first(output))}):
        return lm.forward(ids_BT, mask_BT, cache, past), outputs[0]


def _on_cpu(tensor: Tensor) -> Tensor:
    """Returns a contiguous copy in CPU memory."""
    return tensor.to("cpu", copy=True, memory_format=torch.contiguous_format)
