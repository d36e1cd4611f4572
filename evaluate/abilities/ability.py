"""Ability: one lm-eval task, which of its metrics is the headline, and its chance level; a file in conf/task."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from afteredit.store.errors import BadInput


@dataclass(frozen=True)
class Ability:
    """Holds the keys of one file in conf/task.

    `lm_eval` is an inline lm-eval task config, or the name of a task that lm-eval ships.  `also` names metrics of it
    that are recorded beside the headline.  A `chance` of null is what a model scores that says nothing, computed from
    the rows in use.  `hub` holds path, name, split, revision and columns (ours: theirs).  `labels` holds, for each
    column of class labels, the names of its classes in the order of their numbers: the first name of a class is the
    one that the task uses.
    """

    headline: str
    chance: float | None
    lm_eval: Any
    title: str = ""
    also: list[str] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)  # names of the file with the rows: the embedded one, the real set's
    hub: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.chance is not None and (self.chance < 0 or self.chance >= 1):  # NaN: launch/compose.py
            raise BadInput(f"a task's chance is {self.chance}; it must be a share, at least 0 and below 1, or null")
