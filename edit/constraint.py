"""Constraints: what changes an update as it is written, and views, which restrain what updates add up to.

Composable with every method that yields an Update: `constrain` sees one update, W now and W0; `view` sees W0 and W.
Metrics read the view, the next edit reads the raw weights.  Between the blocks of one MEMIT-family update, and inside a
method's own optimisation, no constraint is applied: it changes what is written at the end.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from afteredit.edit.update import Update

if TYPE_CHECKING:
    import torch

    Weights = Callable[[str], torch.Tensor]  # parameter name -> W (D, F)


class Constraint(Protocol):
    def constrain(self, update: Update, W_now: Weights, W_base: Weights) -> Update:
        """The update that is applied; replay computes it again from the stored one."""

    def view(self, W_base_DF: torch.Tensor, W_DF: torch.Tensor) -> torch.Tensor:
        """The matrix (D, F) that metrics see in the place of W; W itself where nothing is restrained."""


@dataclass(frozen=True)
class Unconstrained:
    """The update is applied as the method gives it, and measured as it is.  Other constraints start from here."""

    def constrain(self, update: Update, W_now: Weights, W_base: Weights) -> Update:
        return update

    def view(self, W_base_DF: torch.Tensor, W_DF: torch.Tensor) -> torch.Tensor:
        return W_DF


def view_file(constraint: Constraint) -> str:
    """Returns the file that defines what the constraint shows, relative to the root; its code decides the numbers."""
    root = Path(__file__).resolve().parent.parent
    return Path(inspect.getfile(type(constraint).view)).resolve().relative_to(root).as_posix()
