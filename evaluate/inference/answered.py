"""What one call for scores or answers has finished so far, context by context."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from afteredit.evaluate.inference.batches import Ids


@dataclass(frozen=True)
class TokenScores:
    """Holds the log p (nats) of each token of a continuation, and at each place the id that is likeliest there."""

    log_p: tuple[float, ...]
    argmax_ids: Ids

    @property
    def nll(self) -> float:
        """Nats, mean per token."""
        return -sum(self.log_p) / len(self.log_p)


@dataclass
class Answered:
    """Holds the contexts that are done, whole batches of them, with their scores and the ids generated after them.

    A call that is given what a stopped one had finished makes the other batches, which are those that the stopped one
    would have made.  `changed` is called after each.
    """

    scores: dict[tuple[Ids, Ids], TokenScores] = field(default_factory=dict)
    ids: dict[Ids, list[int]] = field(default_factory=dict)
    contexts: set[Ids] = field(default_factory=set)
    changed: Callable[[], None] = lambda: None

    def add(
        self, contexts: Iterable[Ids], scores: Mapping[tuple[Ids, Ids], TokenScores], ids: Mapping[Ids, list[int]]
    ) -> None:
        """Takes in what was found for a batch of contexts."""
        self.scores.update(scores)
        self.ids.update(ids)
        self.contexts.update(contexts)
        self.changed()
