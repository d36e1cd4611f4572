"""The keys that say where a run is kept and tracked, how far it goes and how it is resumed."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from enum import Enum

from afteredit.store.errors import BadInput, refuse_secrets
from afteredit.store.field_roles import COURSE, decides

OnCollapse = Enum("OnCollapse", ["stop", "continue"])  # in this form because `continue` is a keyword


class Resume(Enum):
    """Under which conditions a run that has edits already goes on."""

    same = "same"  # only under the code and package versions that began the run
    force = "force"  # under any
    whole = "whole"  # as same; where the journal is damaged, from its last whole record


class When(Enum):
    """When the checkpoints are measured."""

    now = "now"  # in the course of the edits
    later = "later"  # by replay.pending, in as many processes as are started; the edits go on at once


@dataclass(frozen=True)
class RecordSettings:
    """Where the run is kept, how far it goes, how often it is measured and when it stops."""

    n_edits: int = field(metadata=decides(COURSE))
    eval_every: int = field(metadata=decides(COURSE))
    eval_at: list[int] = field(metadata=decides(COURSE))
    measure: When = field(metadata=decides(COURSE))
    runs: str = field(metadata=decides(COURSE))  # folder of the run directories
    resume: Resume = field(metadata=decides(COURSE))
    on_collapse: OnCollapse = field(metadata=decides(COURSE))
    collapse_perplexity: float = field(metadata=decides(COURSE))  # a multiple of the unedited model's perplexity

    def due(self, n_edits: int, n_new: int) -> bool:
        """Tells whether the model is measured after so many edits, the last `n_new` of them one batch."""
        return n_edits % self.eval_every == 0 or any(n_edits - n_new < n <= n_edits for n in self.eval_at)


class Mode(Enum):
    """Where a run is tracked."""

    auto = "auto"  # online when a key or server is configured, else offline
    online = "online"
    offline = "offline"
    disabled = "disabled"


@dataclass(frozen=True)
class TrackerSettings:
    """The keys of conf/tracker."""

    mode: Mode = Mode.auto
    project: str | None = None
    entity: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    log_updates: bool = False  # every edit's factors go up with the results

    def __post_init__(self) -> None:
        """Raises BadInput for what W&B refuses even offline, and for a server's address with a password in it."""
        if self.mode is not Mode.disabled:
            refuse_secrets(os.environ.get("WANDB_BASE_URL", ""), "WANDB_BASE_URL")
        name = self.project_name
        if not 0 < len(name) <= 128 or set(name) & set("/\\#?%:"):
            key = "WANDB_PROJECT" if self.project is None else "tracker.project"
            raise BadInput(f"{key}={name!r}; it must have 1 to 128 characters, none of / \\ # ? % :")
        for tag in self.tags:
            if not 0 < len(tag) <= 64:
                raise BadInput(f"tracker.tags holds {tag!r}; a tag must have 1 to 64 characters")

    @property
    def project_name(self) -> str:
        """The project's name: the one that the config gives, or W&B's own environment, or ours."""
        return (os.environ.get("WANDB_PROJECT") or "afteredit") if self.project is None else self.project
