"""Constraint: changes an update as it is written, or restrains what updates add up to where metrics look (a view).

A constraint works with every method.  `constrain` sees one update, W now and W0; `view` sees W0 and W.  Metrics read
the view, the next edit reads the raw weights.  No constraint acts between the blocks of one MEMIT update or inside a
method's own optimisation: it changes the finished update.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from afteredit.edit.update import Update

if TYPE_CHECKING:
    import torch

    Weights = Callable[[str], torch.Tensor]  # parameter name -> W (D, F)


@runtime_checkable
class Constraint(Protocol):
    def constrain(self, update: Update, W_now: Weights, W_base: Weights) -> Update:
        """Returns the update that is applied; a replay computes it again from the stored one."""

    def view(self, W_base_DF: torch.Tensor, W_DF: torch.Tensor) -> torch.Tensor:
        """Returns the matrix (D, F) that metrics see in the place of W; W itself where nothing is restrained."""


@dataclass(frozen=True)
class Unconstrained:
    """Applies the update as the method gives it and shows the weights as they are; others inherit from it."""

    def constrain(self, update: Update, W_now: Weights, W_base: Weights) -> Update:
        return update

    def view(self, W_base_DF: torch.Tensor, W_DF: torch.Tensor) -> torch.Tensor:
        return W_DF


def view_file(constraint: Constraint) -> str:
    """Returns the file of this program, relative to its root, that defines what the constraint shows; its code decides
    the numbers.  A plug-in's code has a name of its own (`plugin_code`)."""
    root, path = Path(__file__).resolve().parent.parent, Path(inspect.getfile(type(constraint).view)).resolve()
    return (path if path.is_relative_to(root / "edit") else Path(__file__).resolve()).relative_to(root).as_posix()
