"""What editing cannot have changed is not computed again: the blocks below the lowest edited one.

Edits change MLP output matrices, and constraints and views the same ones, so all that happens below the lowest of them
is the unedited model's at every checkpoint.  The hidden states that leave those blocks are kept in CPU memory, batch by
batch, and the same batch at a later checkpoint runs the blocks above alone.  The batches stay as they were, so the
numbers are those of the whole pass, to the bit.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from afteredit.model.kv_cache import keys_values
from afteredit.model.lm import LM
from afteredit.model.tensors import first

log = logging.getLogger(__name__)

Pairs = list[tuple[Tensor, Tensor]]  # keys and values, by block


class Forward(Protocol):
    def __call__(
        self, ids_BT: Tensor, mask_BT: Tensor, cache: DynamicCache, past: int, *, goes_on: bool = False
    ) -> Tensor:
        """As `LM.forward`.  `goes_on`: tokens that differ from checkpoint to checkpoint will be read behind these."""


@dataclass(frozen=True)
class Call:
    """What one forward pass left below: the hidden states that enter the lowest edited block, and, where the text goes
    on freely, the new columns' keys and values of the blocks below it."""

    hidden_BTD: Tensor
    below: Pairs | None

    @property
    def n_bytes(self) -> int:
        tensors = [self.hidden_BTD, *(tensor for pair in self.below or [] for tensor in pair)]
        return sum(tensor.nbytes for tensor in tensors)


class BaseBlocks:
    """Keeps up to `gib` of it; what comes first stays, since every checkpoint asks for the same in the same order."""

    def __init__(self, lm: LM, gib: float):
        self.lm, self.gib = lm, gib
        self.n_bytes = 0
        self._kept: dict[Hashable, list[Call]] = {}
        self._block = 0  # the lowest edited one, below which all is kept; 0: nothing is
        self._full = False
        self._refused = gib <= 0 or not lm.capabilities.reads_on_from_cache

    @contextmanager
    def tape(self, batch: Hashable) -> Iterator[Forward]:
        """What reads `batch`, which must name all that decides the calls made inside: recorded the first time, played
        when it comes again."""
        self._follow_edits()
        calls = self._kept.get(batch)
        if not self._block or (calls is None and self._full):
            yield self.plain
            return
        tape = Tape(self.lm, self._block, calls)
        yield tape.forward
        if calls is None:  # only a whole one counts: after an exception this is not reached
            self._keep(batch, tape.recorded)

    def plain(
        self, ids_BT: Tensor, mask_BT: Tensor, cache: DynamicCache, past: int, *, goes_on: bool = False
    ) -> Tensor:
        """All blocks, and nothing is kept."""
        return self.lm.forward(ids_BT, mask_BT, cache, past)

    def _keep(self, batch: Hashable, calls: list[Call]) -> None:
        n_bytes = self.n_bytes + sum(call.n_bytes for call in calls)
        if n_bytes > self.gib * 2**30:
            self._full = True
            log.info("speed.cache_gib=%g is full: what is measured beyond it runs all blocks at every checkpoint",
                     self.gib)  # fmt: skip
            return
        self._kept[batch], self.n_bytes = calls, n_bytes

    def _follow_edits(self) -> None:
        """Starts anew where a lower block is edited than before."""
        block = 0 if self._refused else lowest_edited(self.lm)
        if block == self._block:
            return
        self._kept, self._block, self.n_bytes, self._full = {}, block, 0, False
        if block and not can_start_at(self.lm, block):
            log.info("%s: its blocks cannot be run from the lowest edited one alone; all are run at every checkpoint",
                     type(self.lm.model).__name__)  # fmt: skip
            self._block, self._refused = 0, True


class Tape:
    """Calls in the order in which they were made, recorded or played."""

    def __init__(self, lm: LM, block: int, calls: Sequence[Call] | None):
        self.lm, self.block = lm, block
        self.recorded: list[Call] = []
        self._playing = None if calls is None else iter(calls)

    def forward(
        self, ids_BT: Tensor, mask_BT: Tensor, cache: DynamicCache, past: int, *, goes_on: bool = False
    ) -> Tensor:
        if self._playing is not None:
            return self._play(next(self._playing), ids_BT, mask_BT, cache, past)
        hidden_BTD, entering_BTD = seen_entering(self.lm, self.block, ids_BT, mask_BT, cache, past)
        pairs = keys_values(cache)[: self.block]
        below = [(_stored(keys[:, :, past:]), _stored(values[:, :, past:])) for keys, values in pairs]
        self.recorded.append(Call(_stored(entering_BTD), below if goes_on else None))
        return hidden_BTD

    def _play(self, call: Call, ids_BT: Tensor, mask_BT: Tensor, cache: DynamicCache, past: int) -> Tensor:
        entering_BTD = call.hidden_BTD.to(self.lm.device)
        hidden_BTD = self.lm.forward_from(self.block, entering_BTD, ids_BT, mask_BT, cache, past)
        for index in range(self.block):
            layer = cast(DynamicLayer, cache.layers[index])
            if call.below is not None:
                keys, values = call.below[index]
                layer.update(keys.to(self.lm.device), values.to(self.lm.device))
            else:  # nobody reads these columns, but the cache's length is asked of its first layer
                length_BHTd = entering_BTD.new_zeros(1, 1, 1, 1).expand(len(ids_BT), 1, mask_BT.shape[1], 1)
                layer.lazy_initialization(length_BHTd, length_BHTd)
                layer.keys = layer.values = length_BHTd
        return hidden_BTD


def lowest_edited(lm: LM) -> int:
    """The lowest block with an edited matrix; 0 where none is known, or a matrix that is no MLP's output is edited."""
    names = {name: layer for layer, name in enumerate(lm.anatomy.mlp_out_names)}
    return min((names.get(name, 0) for name in lm.weights.base), default=0)


@torch.no_grad()
def can_start_at(lm: LM, block: int) -> bool:
    """Does the model, on one device, give the same from `block` up alone as it does as a whole?"""
    if len({parameter.device for parameter in lm.model.parameters()}) > 1:
        return False
    ids_BT = torch.tensor([[1, 2, 3]])
    mask_BT = torch.ones_like(ids_BT)
    whole_BTD, entering_BTD = seen_entering(lm, block, ids_BT, mask_BT, DynamicCache(), 0)
    return torch.equal(lm.forward_from(block, entering_BTD, ids_BT, mask_BT, DynamicCache(), 0), whole_BTD)


def seen_entering(
    lm: LM, block: int, ids_BT: Tensor, mask_BT: Tensor, cache: DynamicCache, past: int
) -> tuple[Tensor, Tensor]:
    """`lm.forward`, and the hidden states that enter `block` on the way."""
    seen: list[Tensor] = []
    hook = lm.anatomy.blocks[block - 1].register_forward_hook(lambda _m, _i, output: seen.append(first(output)))
    try:
        return lm.forward(ids_BT, mask_BT, cache, past), seen[0]
    finally:
        hook.remove()


def _stored(tensor: Tensor) -> Tensor:
    """A copy of its own in CPU memory."""
    return tensor.to("cpu", copy=True, memory_format=torch.contiguous_format)
