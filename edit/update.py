"""Update: the change that a method makes, as data, before any constraint; State: what a method remembers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from afteredit.store.errors import BadInput

if TYPE_CHECKING:
    import torch

# What a method remembers between edits: tensors by name, never changed in place.  An editor folds it from the updates.
State = Mapping[str, "torch.Tensor"]

FLOAT32_MAX = 3.4028234663852886e38


class Change(Protocol):
    """A change to one matrix W (D, F)."""

    def dense(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """Returns (D, F) float64, the same bits on every device."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Returns (D, F); another tuple where the tensors fit no matrix."""

    def norm(self) -> float:
        """Returns the Frobenius norm."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """Returns the stored tensors, by the names of the class's fields."""


@dataclass(frozen=True)
class LowRank:
    """The change left (D, r) @ right (F, r)ᵀ, with r much smaller than D and F."""

    left_Dr: torch.Tensor
    right_Fr: torch.Tensor

    def dense(self, device: torch.device | str = "cpu") -> torch.Tensor:
        if self.left_Dr.shape[1] == 1:  # no sums: every device rounds alike
            return self.left_Dr.to(device).double() * self.right_Fr.to(device).double().T
        return (self.left_Dr.cpu().double() @ self.right_Fr.cpu().double().T).to(device)  # sums: in the CPU's order

    @property
    def shape(self) -> tuple[int, ...]:
        left, right = self.left_Dr.shape, self.right_Fr.shape
        fit = len(left) == len(right) == 2 and left[1] == right[1]
        return (left[0], right[0]) if fit else (*left, *right, 0)

    def norm(self) -> float:
        """Returns the norm by |A Bᵀ|² = Σ (AᵀA ⊙ BᵀB), which needs no D × F matrix where there are few terms."""
        if self.left_Dr.shape[1] > min(len(self.left_Dr), len(self.right_Fr)):
            return float(self.dense().norm())
        left_Dr, right_Fr = self.left_Dr.double(), self.right_Fr.double()
        return math.sqrt(max(float(((left_Dr.T @ left_Dr) * (right_Fr.T @ right_Fr)).sum()), 0.0))

    def tensors(self) -> dict[str, torch.Tensor]:
        return {"left_Dr": self.left_Dr, "right_Fr": self.right_Fr}


@dataclass(frozen=True)
class Dense:
    """A change without structure, held as it is."""

    delta_DF: torch.Tensor

    def dense(self, device: torch.device | str = "cpu") -> torch.Tensor:
        return self.delta_DF.to(device).double()

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.delta_DF.shape)

    def norm(self) -> float:
        return float(self.delta_DF.double().norm())

    def tensors(self) -> dict[str, torch.Tensor]:
        return {"delta_DF": self.delta_DF}


KINDS: dict[str, type[LowRank] | type[Dense]] = {"LowRank": LowRank, "Dense": Dense}


@dataclass(frozen=True)
class Update:
    """Holds `changes` by parameter name, what the method's `extend` adds to the state (`adds`), and diagnostics."""

    changes: Mapping[str, Change]
    adds: Mapping[str, torch.Tensor] = field(default_factory=dict)
    diagnostics: Mapping[str, float] = field(default_factory=dict)

    def is_finite(self) -> bool:
        """Returns whether float32 can hold every entry of every change.

        A product of factors is judged by the product of their norms, which none of its entries exceeds.
        """
        for change in self.changes.values():
            norms = [float(tensor.double().norm()) for tensor in change.tensors().values()]
            if not math.prod(norms) <= FLOAT32_MAX:  # NaN is not
                return False
        return True

    def flat(self) -> dict[str, torch.Tensor]:
        """Returns all tensors, under names from which `load_update` makes the update again."""
        flat = {f"adds|{name}": tensor for name, tensor in self.adds.items()}
        for name, change in self.changes.items():
            for part, tensor in change.tensors().items():
                flat[f"changes|{name}|{type(change).__name__}|{part}"] = tensor
        return {name: tensor.detach().cpu().contiguous() for name, tensor in flat.items()}


def load_update(path: Path) -> Update:
    """Returns the Update whose `flat` tensors are in this safetensors file; its diagnostics are not stored.

    Raises BadInput where there is none in it."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    changes: dict[str, dict] = {}
    adds = {}
    try:
        for name, tensor in load_file(path).items():
            kind, *rest = name.split("|")
            if kind == "adds":
                adds[rest[0]] = tensor
            else:
                parameter, change, part = rest
                changes.setdefault(parameter, {"kind": change})[part] = tensor
        return Update({name: KINDS[parts.pop("kind")](**parts) for name, parts in changes.items()}, adds)
    except (SafetensorError, ValueError, KeyError, TypeError, IndexError) as problem:
        raise BadInput(f"{path} holds no update ({problem}); restore it") from None
