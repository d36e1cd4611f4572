"""Speed keys of editing: they decide how fast values are found and how much memory that takes, and name no run."""

from __future__ import annotations

from dataclasses import dataclass, field

from afteredit.store.errors import BadInput
from afteredit.store.field_roles import SPEED, decides


@dataclass(frozen=True)
class Speed:
    together: int = field(default=8, metadata=decides(SPEED))  # facts whose values are optimised at once

    def __post_init__(self) -> None:
        if self.together < 1:
            raise BadInput(f"speed.together={self.together}; it must be at least 1")
