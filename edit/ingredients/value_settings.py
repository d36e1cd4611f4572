"""The keys that every method which optimises values has; read without torch, as a config is checked."""

from __future__ import annotations

from enum import Enum
from typing import Protocol


class KlAt(Enum):
    """The token of "{subject} is a" at which the KL term compares predictions."""

    prompt_end = "prompt_end"  # the last one, as ROME's eq. 4 says
    subject = "subject"  # the subject's last one, where the offset is added, as the references' code has it


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
