"""The keys that every method which optimises values has; read without torch, as a config is checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from afteredit.edit.method import check_layers, check_numbers
from afteredit.store.errors import BadInput


class KlAt(Enum):
    """The token of "{subject} is a" at which the KL term compares predictions."""

    prompt_end = "prompt_end"  # the last one, as ROME's eq. 4 says
    subject = "subject"  # the subject's last one, where the offset is added, as the references' code has it


class ValueNorm(Enum):
    """The length of the MLP output v* that a fact asks for."""

    none = "none"  # as the search finds it
    anchor = "anchor"  # the mean over pilot edits of the unedited model: value_norm.py


class Distribute(Enum):
    """The blocks among which a batch's residuals are distributed: layer_by_layer.py."""

    spread = "spread"  # all, each with its share of what is missing after the last of them
    boundary = "boundary"  # the first and the last, each with values of its own and the whole residual


@dataclass(frozen=True)
class ValueKeys:
    """Remedies that came after the methods and that each of them takes; all are off by default."""

    stop_steps: int = 0  # losses in a row at which the search may end, every target token being the likeliest; 0: never
    value_norm: ValueNorm = ValueNorm.none
    drop_above: float | None = 2.0  # with an anchor, edits with a longer v* (in anchors) are not written; None: all are
    pilot_edits: int = 100  # training rows that the anchor is the mean of

    def __post_init__(self) -> None:
        check_numbers(self, stop_steps="at least 0", pilot_edits="at least 1")
        if self.drop_above is not None:
            check_numbers(self, drop_above="above 0")


def check_blocks(layers: Sequence[int] | None, distribute: Distribute) -> None:
    """Raises BadInput where the list of blocks is not one, or has no first and last."""
    check_layers(layers)
    if distribute is Distribute.boundary and layers and len(layers) == 1:
        raise BadInput("method.distribute=boundary edits the first and the last of method.layers, which are "
                       f"{list(layers)}; give two blocks or more, or set method.distribute=spread")  # fmt: skip


class ValueSettings(Protocol):
    @property
    def value_steps(self) -> int: ...
    @property
    def value_lr(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def kl_weight(self) -> float: ...
    @property
    def kl_at(self) -> KlAt: ...
    @property
    def max_offset(self) -> float: ...
    @property
    def stop_loss(self) -> float: ...
    @property
    def stop_steps(self) -> int: ...
