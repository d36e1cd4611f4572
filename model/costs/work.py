"""What work a piece of a run is: forward passes, other products of matrices, and what it holds in memory.

`commands/plan` turns it into seconds and bytes.  A method states its own (`Method.cost`); what evaluation does is
counted on a model without weights (`commands/plan/counted_lm.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from afteredit.model.lm import LM


@dataclass(frozen=True)
class Pass:
    """Forward passes of one size, `times` of them."""

    tokens: float  # new ones, of all rows, padding included
    columns: int  # that each of them attends to
    blocks: float  # that run
    logits: int = 0  # rows of logits
    backward: float = 0.0  # blocks through which gradients go back
    times: float = 1.0
    decoding: bool = False  # each row reads one token, after those in its cache


@dataclass(frozen=True)
class Work:
    """Passes; float64 operations on matrices; bytes that are moved in passes over whole matrices."""

    passes: tuple[Pass, ...] = ()
    solving: float = 0.0
    moved: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.passes + other.passes, self.solving + other.solving, self.moved + other.moved)

    def __mul__(self, times: float) -> Work:
        passes = tuple(replace(p, times=p.times * times) for p in self.passes)
        return Work(passes, self.solving * times, self.moved * times)


def total(parts: Iterable[Work]) -> Work:
    """Returns the sum of several pieces of work."""
    return sum(parts, Work())


@dataclass(frozen=True)
class Cost:
    """What a method costs, beside what every run does.

    `once`: what is made once per model and kept in the user's cache; `start`: at every start; `update`: of one batch.
    Memory in bytes by what it is for: `device` and `cpu` all the while, `preparing` and `updating` on the device for
    the while.  `disk` is what the journal keeps of one batch.
    """

    once: Work = Work()
    start: Work = Work()
    update: Work = Work()
    device: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    preparing: float = 0.0
    updating: float = 0.0
    disk: float = 0.0
    notes: tuple[str, ...] = ()  # what the estimate leaves open


def activations(lm: LM, tokens: float, blocks: float) -> float:
    """Returns the bytes that a backward pass to a hidden state needs of a forward pass through frozen blocks: some 12 D
    and 4 F entries a token and block."""
    D, F = lm.widths(0)
    return blocks * tokens * (12 * D + 4 * F) * element_bytes(lm)


def element_bytes(lm: LM) -> int:
    """Returns the bytes of one weight."""
    return int(next(lm.model.parameters()).element_size())


def key_value_width(lm: LM) -> int:
    """Returns how many entries a block's keys and values of one token hold together."""
    config = lm.model.config.get_text_config()
    heads = config.num_attention_heads
    kept = getattr(config, "num_key_value_heads", None) or heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return int(2 * kept * width)
