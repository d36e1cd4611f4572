"""Constraints: what changes an update as it is written (design: `constrain(update, W_now, W_base)`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from afteredit.edit.update import Update

if TYPE_CHECKING:
    import torch

    Weights = Callable[[str], torch.Tensor]  # parameter name -> W (D, F)


class Constraint(Protocol):
    def constrain(self, update: Update, W_now: Weights, W_base: Weights) -> Update:
        """The update that is applied; replay computes it again from the stored one."""


@dataclass(frozen=True)
class Unconstrained:
    """The update is applied as the method gives it."""

    def constrain(self, update: Update, W_now: Weights, W_base: Weights) -> Update:
        return update
