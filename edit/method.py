"""Method: the base class of every editing method, a flat frozen dataclass whose fields are its YAML keys."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from afteredit.edit.request import EditRequest
from afteredit.edit.speed import Speed
from afteredit.edit.update import State, Update
from afteredit.model.costs.work import Cost, Pass, Work
from afteredit.store.errors import BadInput

if TYPE_CHECKING:
    import torch

    from afteredit.model.lm import LM


@dataclass(frozen=True)
class Given:
    """Holds what a run hands to `prepare`: its seed, and a function that returns its edit set's training rows.

    `training` never returns the rows that the run is evaluated on; it raises BadInput where the edit set has no
    training split.
    """

    seed: int
    training: Callable[[], list[EditRequest]]


@dataclass(frozen=True)
class Prepared:
    """Holds a method's constants for one unedited model; no edit changes them.

    `contexts` are the prefixes under which a fact is written ("" stands for the bare prompt); the run stores them.
    `hashes` name the cached files that `tensors` and `factors` come from; the run records them.
    `factors` are Cholesky factors of second moments, float64, by the name of what they factorise.
    `values` are the values that were optimised for the requests of the next update, by request id, on the weights that
    this update is made on; `together` of them are optimised at once.
    """

    contexts: tuple[str, ...] = ("",)
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)
    factors: Mapping[str, torch.Tensor] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    together: int = Speed().together


@dataclass(frozen=True)
class Method(ABC):
    """The verbs of a method, and what it says of itself.  A subclass adds its YAML keys as fields."""

    max_batch: ClassVar[int | None] = None  # most facts of one update; None: any number
    needs_true_answer: ClassVar[bool] = False  # requests without target_true are refused
    optimises_values: ClassVar[bool] = False  # it has `find_values`, and `update` reads their results

    @abstractmethod
    def edited(self, lm: LM) -> list[str]:
        """Returns the names of the parameters that this method edits, lowest block first."""

    @abstractmethod
    def prepare(self, lm: LM, given: Given) -> Prepared:
        """Returns the constants, computed from the unedited model or read from the cache."""

    def content(self, given: Given) -> dict[str, str]:
        """Returns a hash of each text and set of rows that `prepare` reads; a run's name holds them in the place of the
        fields that only say where they are."""
        return {}

    @abstractmethod
    def update(self, lm: LM, requests: Sequence[EditRequest], prepared: Prepared, state: State) -> Update:
        """Returns the change that writes `requests` into the model as it is now.  Mutates nothing.

        Raises NoEdit where the model leaves no such change.
        """

    def extend(self, state: State, update: Update, prepared: Prepared) -> State:
        """Returns the state after `update`.  A method that remembers nothing between edits returns `state` itself."""
        return state

    @property
    def values_are_independent(self) -> bool:
        """Returns whether a request's optimised value is the same whatever requests it is found beside."""
        return True

    def values_of(self, lm: LM, requests: Sequence[EditRequest], prepared: Prepared) -> Mapping[str, Any]:
        """Returns the requests' optimised values by their ids: those in `prepared`, or else found now."""
        return prepared.values or self.find_values(lm, requests, prepared, prepared.together)

    def find_values(self, lm: LM, requests: Sequence[EditRequest], prepared: Prepared, together: int) -> dict[str, Any]:
        """Returns each request's optimised value by its id, optimising `together` of them at once.  Mutates nothing.

        Where `values_are_independent`, requests of other batches may be among them.  Methods whose `optimises_values`
        is false have no values.
        """
        return {}

    def cost(self, lm: LM, batch: Sequence[EditRequest], together: int) -> Cost:
        """Returns what this method costs on a model, which may lack its weights, for a batch like this one.

        By default that is one pass forward and back through all blocks, and an update of whole matrices.
        """
        lengths = [len(lm.tokens.question_ids(request.question)) for request in batch]
        answers = [len(lm.tokens.answer_ids(request.target_new, request.question)) for request in batch]
        width, n_blocks = max(map(sum, zip(lengths, answers, strict=True))) - 1, lm.n_blocks
        there_and_back = Pass(len(batch) * width, width, n_blocks, sum(answers), backward=n_blocks)
        entries = len(self.edited(lm)) * math.prod(lm.widths(0))
        return Cost(update=Work((there_and_back,), moved=16.0 * entries), disk=4.0 * entries)


def check_numbers(method: object, **allowed: str) -> None:
    """Raises BadInput, naming the key, for a field that is not as `allowed` ("at least 1", "above 0"), nan or inf."""
    for name, bound in allowed.items():
        given, least = getattr(method, name), float(bound.split()[-1])
        fits = given > least if bound.startswith("above") else given >= least
        if not (fits and math.isfinite(given)):
            raise BadInput(f"method.{name}={given}; it must be {bound}")


def check_layers(layers: Sequence[int] | None) -> None:
    """Raises BadInput where the list of blocks is empty or names a block twice.  Whether they exist is known later."""
    if layers is not None and (not layers or len(set(layers)) < len(layers)):
        raise BadInput(f"method.layers={list(layers)}; give one block or more, each once, or null for the default")
