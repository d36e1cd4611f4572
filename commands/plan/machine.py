"""How fast a machine is with a model's own blocks: measured in some ten seconds, or by figures that are given."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import AutoModelForCausalLM, DynamicCache

from afteredit.commands.plan.counted_lm import CountedLM
from afteredit.model.costs.work import Pass, Work
from afteredit.model.lm import LM

SECONDS = 10.0  # for all measurements together
SIZES = (1, 4, 16, 64, 256, 1024)  # tokens of a pass
WIDTH = 64  # tokens of one row of it
Curve = dict[float, float]  # seconds by size


@dataclass(frozen=True)
class Machine:
    """Seconds of one block and of the logits by the number of tokens, and rates.

    `per_column`: seconds for each column that a token attends to, in a block; `cached` where rows read one token each.
    `back`: how much longer a block takes in a backward pass.  `solving`: float64 operations a second.  `moving`: bytes
    a second.  `spread`: relative difference of repeated measurements.
    """

    block: Curve
    logits: Curve
    per_pass: float
    per_column: float
    cached: float
    back: float
    solving: float
    moving: float
    spread: float
    memory: dict[str, float] = field(default_factory=dict)  # bytes there are, by device

    def seconds(self, work: Work) -> float:
        """Returns how long a piece of work takes."""
        return sum(self._of(p) for p in work.passes) + work.solving / self.solving + work.moved / self.moving

    def _of(self, p: Pass) -> float:
        passing = 0.0
        if p.tokens and p.blocks:
            beyond = max(0, p.columns - WIDTH) * (self.cached if p.decoding else self.per_column)
            one = along(self.block, p.tokens) + beyond * p.tokens
            passing = self.per_pass + one * (p.blocks + self.back * p.backward)
        reading = along(self.logits, p.logits) * (3.0 if p.backward else 1.0) if p.logits else 0.0
        return p.times * (passing + reading)


def along(curve: Curve, size: float) -> float:
    """Returns the seconds at a size, between those that were measured along a straight line; beyond them in proportion
    to the last."""
    sizes = sorted(curve)
    if size <= sizes[0]:
        return curve[sizes[0]]
    for low, high in zip(sizes, sizes[1:], strict=False):
        if size <= high:
            return curve[low] + (curve[high] - curve[low]) * (size - low) / (high - low)
    return curve[sizes[-1]] * size / sizes[-1]


def given(lm: CountedLM, tflops: float, gib: float) -> Machine:
    """Returns a machine on which products of matrices run at this rate, whatever their size."""
    rate, D = tflops * 1e12, lm.widths(0)[0]
    n_block = sum(p.numel() for p in lm.anatomy.blocks[0].parameters() if p.ndim == 2)
    block = {1.0: 2 * n_block / rate, 1024.0: 2048 * n_block / rate}
    logits = {1.0: 2 * D * lm.vocabulary / rate, 1024.0: 2048 * D * lm.vocabulary / rate}
    return Machine(block, logits, 0.0, 4 * D / rate, 4 * D / rate, 1.0, rate / 8, 1e12, 0.3,
                   {"device": gib * 2**30, "cpu": math.inf})  # fmt: skip


def measured(lm: CountedLM, gib: float | None) -> Machine:
    """Measures this machine with three blocks of the model's shape, filled with a constant."""
    clock = Clock(lm.planned_device)
    three = _of_three_blocks(lm)
    block, per_pass = _block_curve(three, clock)
    D, F = lm.widths(0)
    head_VD = torch.full((lm.vocabulary, D), 0.01, dtype=three.model.dtype, device=lm.planned_device)
    logits = {float(n): clock.median(partial(_logits, head_VD, n)) for n in (1, 32, 512)}
    per_column, cached = _per_column(three, clock, block)
    size = min(F, 2048)
    square_FF = torch.eye(size, dtype=torch.float64, device=lm.planned_device) * 2
    solving = size**3 / 3 / clock.median(lambda: torch.linalg.cholesky(square_FF))
    large = torch.zeros(2**24, device=lm.planned_device)
    moving = 2 * large.nbytes / clock.median(lambda: large.clone())
    return Machine(block, logits, per_pass, per_column, cached, _back(three, clock), solving, moving, clock.spread(),
                   _memory(lm.planned_device, gib))  # fmt: skip


class Clock:
    """Times pieces of work, each several times while there is time, and keeps the spread of their repetitions.

    On one thread of a CPU it takes the process's own time, which other processes do not lengthen.
    """

    def __init__(self, device: torch.device):
        alone = device.type == "cpu" and torch.get_num_threads() == 1
        self._now = time.process_time if alone else time.perf_counter
        self._device, self._began = device, self._now()
        self._spreads: list[float] = []

    def has_time(self, share: float) -> bool:
        """Tells whether less than this share of the seconds has gone by."""
        return self._now() - self._began < share * SECONDS

    def median(self, work: Callable[[], Any], times: int = 5) -> float:
        """Returns the median seconds of a few runs, the first left out; of fewer where one takes long."""
        seconds: list[float] = []
        work()
        while len(seconds) < times and (not seconds or sum(seconds) < SECONDS / 20):
            self._wait()
            began = self._now()
            work()
            self._wait()
            seconds.append(self._now() - began)
        seconds.sort()
        if len(seconds) > 2:
            self._spreads.append((seconds[-1] - seconds[0]) / 2 / seconds[len(seconds) // 2])
        return seconds[len(seconds) // 2]

    def spread(self) -> float:
        """Returns the mean relative half width of the repetitions."""
        return sum(self._spreads) / max(1, len(self._spreads))

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def _of_three_blocks(lm: CountedLM) -> LM:
    """Returns a model of three blocks of this shape, of few tokens, whose weights are all alike."""
    config = deepcopy(lm.model.config)
    text = config.get_text_config()
    text.num_hidden_layers, text.vocab_size = 3, 64
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:3]
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        setattr(text, name, None)
    model = AutoModelForCausalLM.from_config(config, dtype=lm.model.dtype)
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.01)
    return LM(model.to(lm.planned_device), lm.tokenizer)


@torch.no_grad()
def _block_curve(three: LM, clock: Clock) -> tuple[Curve, float]:
    """Returns the seconds of one block by the number of tokens, and those of a pass beside its blocks."""
    curve: Curve = {}
    beside = []
    for n in SIZES:
        if curve and not clock.has_time(0.4):
            break
        ids_BT = torch.ones(max(1, n // WIDTH), min(n, WIDTH), dtype=torch.long)
        mask_BT = torch.ones_like(ids_BT)
        hidden_BTD = torch.full((*ids_BT.shape, three.widths(0)[0]), 0.1, dtype=three.model.dtype).to(three.device)

        def whole(ids_BT: Tensor = ids_BT, mask_BT: Tensor = mask_BT) -> Tensor:
            return three.forward(ids_BT, mask_BT, DynamicCache())

        def last(ids_BT: Tensor = ids_BT, mask_BT: Tensor = mask_BT, hidden_BTD: Tensor = hidden_BTD) -> Tensor:
            return three.forward_from(2, hidden_BTD, ids_BT, mask_BT, None, 0)

        of_three, of_one = clock.median(whole), clock.median(last)
        curve[float(n)] = max((of_three - of_one) / 2, of_three / 10)
        beside.append(max(0.0, of_one - curve[float(n)]))
    return curve, min(beside)


@torch.no_grad()
def _per_column(three: LM, clock: Clock, block: Curve) -> tuple[float, float]:
    """Returns the seconds that a column beyond WIDTH costs a token in a block: of whole rows, and of one token each."""
    long = min(512, three.max_tokens or 512)
    ids_BT = torch.ones(1, long, dtype=torch.long)
    rows = clock.median(lambda: three.forward(ids_BT, torch.ones_like(ids_BT), DynamicCache()), times=3) / 3
    per_column = max(0.0, rows - along(block, long)) / (long * (long - WIDTH))
    n_rows = 16

    def decode(columns: int) -> float:
        cache, mask_BT = DynamicCache(), torch.ones(n_rows, columns, dtype=torch.long)
        three.forward(torch.ones(n_rows, columns, dtype=torch.long), mask_BT, cache)
        ids_B1 = torch.ones(n_rows, 1, dtype=torch.long)

        def step() -> None:
            n_cached = cache.get_seq_length()
            three.forward(ids_B1, torch.ones(n_rows, n_cached + 1, dtype=torch.long), cache, n_cached)

        return clock.median(step) / 3

    few, many = decode(WIDTH), decode(long - 16)
    return per_column, max(0.0, many - few) / (n_rows * (long - 16 - WIDTH))


def _back(three: LM, clock: Clock) -> float:
    """Returns how long a backward pass takes in the blocks, as a multiple of the pass there."""
    n = 128
    ids_BT = torch.ones(n // 16, 16, dtype=torch.long)
    start_BTD = torch.full((*ids_BT.shape, three.widths(0)[0]), 0.1, dtype=three.model.dtype, device=three.device)

    def there_and_back() -> None:
        hidden_BTD = start_BTD.clone().requires_grad_()
        with torch.enable_grad():
            three.forward_from(2, hidden_BTD, ids_BT, torch.ones_like(ids_BT), None, 0).float().sum().backward()

    with torch.no_grad():
        there = clock.median(lambda: three.forward_from(2, start_BTD, ids_BT, torch.ones_like(ids_BT), None, 0))
    return max(0.5, clock.median(there_and_back) / there - 1)


@torch.no_grad()
def _logits(head_VD: Tensor, n: int) -> Tensor:
    logits_NV = linear(torch.full((n, head_VD.shape[1]), 0.1, dtype=head_VD.dtype, device=head_VD.device), head_VD)
    return logits_NV.float().logsumexp(-1) + logits_NV.argmax(-1)


def _memory(device: torch.device, gib: float | None) -> dict[str, float]:
    there = {"cpu": float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))}
    if device.type == "cuda":
        there["device"] = float(torch.cuda.get_device_properties(device).total_memory)
    if gib is not None:
        there["device" if device.type == "cuda" else "cpu"] = gib * 2**30
    return there
