"""What every editing method is: a flat frozen dataclass whose fields are its YAML keys, with two verbs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from afteredit.edit.request import EditRequest
from afteredit.edit.update import State, Update
from afteredit.store.errors import BadInput

if TYPE_CHECKING:
    import torch

    from afteredit.model.lm import LM


@dataclass(frozen=True)
class Given:
    """What a run hands to `prepare`: its seed, and the training rows of its edit set (never its evaluation rows;
    calling it raises BadInput where the edit set has none)."""

    seed: int
    training: Callable[[], list[EditRequest]]


@dataclass(frozen=True)
class Prepared:
    """Constants of a method for one unedited model: never changed by an edit, never written to a run directory.

    `contexts` are the text prefixes under which a fact is written ("" is the bare prompt); the run stores them.
    `hashes` name the cached files behind `tensors`; the run records them.  `factors` of second moments are made once,
    F³/3 operations each (a minute on few cores where F is 16384, as GPT-J's), and kept in 8 F² bytes.
    """

    contexts: tuple[str, ...] = ("",)
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)
    # What `ahead.py` found for the requests of one update, by their ids; of the weights that update is made on.
    ahead: Mapping[str, Any] = field(default_factory=dict)
    factors: dict[str, torch.Tensor] = field(default_factory=dict)

    def factorised(self, *names: str, device: torch.device | str = "cpu") -> Prepared:
        """With the factors of these second moments among `tensors`, made on the device.  Raises BadInput where one is
        singular."""
        from afteredit.edit.ingredients.second_moment import factor

        for name in names:
            if name not in self.factors:
                self.factors[name] = factor(self.tensors[name], device)
        return self

    def inverse_times(self, name: str, keys_FE: torch.Tensor) -> torch.Tensor:
        """C⁻¹ K (F, E), float64 on the CPU, of the second moment of that name."""
        from afteredit.edit.ingredients.second_moment import inverse_times

        return inverse_times(self.factorised(name).factors[name], keys_FE)


class Method(Protocol):
    def prepare(self, lm: LM, given: Given) -> Prepared:
        """The constants, computed from the unedited model or read from the cache."""

    def update(self, lm: LM, requests: Sequence[EditRequest], prepared: Prepared, state: State) -> tuple[Update, State]:
        """The change that writes `requests` into the model as it is now.  Mutates nothing."""

    def edited_layers(self, lm: LM) -> list[int]:
        """The blocks whose MLP output matrices this method edits."""


def check_numbers(method: object, **allowed: str) -> None:
    """Raises BadInput, naming the key, for a field that is not as `allowed` ("at least 1", "above 0"), nan or inf."""
    for name, bound in allowed.items():
        given, least = getattr(method, name), float(bound.split()[-1])
        fits = given > least if bound.startswith("above") else given >= least
        if not (fits and math.isfinite(given)):
            raise BadInput(f"method.{name}={given}; it must be {bound}")


def check_layers(layers: Sequence[int] | None) -> None:
    """Raises BadInput where blocks are listed but none, or one twice; whether they exist is known once the model is."""
    if layers is not None and (not layers or len(set(layers)) < len(layers)):
        raise BadInput(f"method.layers={list(layers)}; give one block or more, each once, or null for the default")
