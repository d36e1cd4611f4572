"""A model without weights that answers at once and counts what it is asked: the passes of evaluation, to the token.

Evaluation's own code runs on it, with its batches, shared prefixes and kept blocks, so that no formula repeats them.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from afteredit.evaluate.inference.kept_blocks import Forward, KeptBlocks
from afteredit.model.costs.work import Pass, element_bytes, key_value_width
from afteredit.model.lm import LM


@dataclass
class Counts:
    """Work as it is done first, and again with what was kept of it; the most that is held at once, in entries."""

    first: list[Pass] = field(default_factory=list)
    again: list[Pass] = field(default_factory=list)
    columns: int = 0  # of all rows of a pass, whose keys and values are held
    tokens: int = 0  # of one pass
    logits: int = 0  # rows at once

    def add(self, one: Pass, blocks_again: float) -> None:
        """Counts a pass of which only so many blocks run when it is made again."""
        self.first.append(one)
        self.again.append(Pass(one.tokens, one.columns, blocks_again, one.logits, decoding=one.decoding))


class CountedLM(LM):
    """An LM on the meta device.  Inside `counting` its passes are counted, not made.

    `vocabulary`: of the real model, of which a stand-in tokenizer knows nothing.  `is_estimated`: tokens are counted
    from characters.
    """

    planned_device: torch.device
    is_estimated: bool
    vocabulary: int
    counts: Counts | None = None
    answer_tokens: float = float("inf")  # after which every greedy answer ends
    _decoded = 0

    @property
    def device(self) -> torch.device:
        return self.planned_device if self.counts is None and hasattr(self, "planned_device") else torch.device("cpu")

    @contextmanager
    def counting(self, answer_tokens: float = float("inf")) -> Iterator[Counts]:
        """Counts what is run inside; every greedy answer ends after so many tokens."""
        self.counts, self.answer_tokens = Counts(), answer_tokens
        try:
            yield self.counts
        finally:
            self.counts = None

    def forward(self, ids_BT: Tensor, mask_BT: Tensor, cache: Any = None, n_cached: int = 0) -> Tensor:
        if self.counts is None:
            return super().forward(ids_BT, mask_BT, cache, n_cached)
        return self.count(ids_BT, mask_BT, self.n_blocks)

    def count(self, ids_BT: Tensor, mask_BT: Tensor, blocks_again: int) -> Tensor:
        """Counts a pass and returns hidden states (B, T, D) that mean nothing."""
        counts, (n_rows, width) = self.counts, ids_BT.shape
        assert counts is not None
        self._decoded = self._decoded + 1 if width == 1 else 0
        counts.add(Pass(ids_BT.numel(), mask_BT.shape[1], self.n_blocks, decoding=width == 1), blocks_again)
        counts.columns = max(counts.columns, mask_BT.numel())
        counts.tokens = max(counts.tokens, ids_BT.numel())
        return torch.zeros(1).expand(n_rows, width, self.widths(0)[0])

    def logits(self, hidden: Tensor) -> Tensor:
        if self.counts is None:
            return super().logits(hidden)
        n_rows = hidden.shape[:-1].numel()
        self.counts.add(Pass(0, 0, 0, n_rows), 0)
        self.counts.logits = max(self.counts.logits, n_rows)
        row_V = torch.zeros(len(self.tokenizer))
        ends = [i for i in self.tokens.end_ids if i < len(row_V)]  # a stand-in lacks the model's own
        row_V[ends[0] if ends and self._decoded >= self.answer_tokens else self._filler] = 1.0
        return row_V.expand(*hidden.shape[:-1], len(row_V))

    @property
    def _filler(self) -> int:
        """A token that ends no answer."""
        return next(i for i in self.tokens.text_ids(" the market of a town")[::-1] if i not in self.tokens.end_ids)


class CountedBlocks(KeptBlocks):
    """Counts what is kept of the blocks below the lowest edited one, as KeptBlocks keeps it."""

    def __init__(self, lm: CountedLM, gib: float, block: int):
        super().__init__(lm, 0.0)
        self._counted, self._room, self._below = lm, gib * 2**30, block

    @contextmanager
    def forward_of(self, batch: Hashable, *, continued: bool = False) -> Iterator[Forward]:
        lm, size = self._counted, element_bytes(self._counted)
        keeps = self._below > 0 and not self._full
        held = [0]

        def forward(ids_BT: Tensor, mask_BT: Tensor, cache: Any = None, n_cached: int = 0) -> Tensor:
            pairs = key_value_width(lm) * self._below if continued and not held[0] else 0
            held[0] += ids_BT.numel() * (lm.widths(0)[0] + pairs) * size
            return lm.count(ids_BT, mask_BT, lm.n_blocks - self._below if keeps else lm.n_blocks)

        yield forward
        if self._below and self.n_bytes + held[0] > self._room:
            self._full = True
        elif self._below:
            self.n_bytes += held[0]
