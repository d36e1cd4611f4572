"""The top-level keys that say where a run is kept, how far it goes and how it is resumed."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from afteredit.store.field_roles import COURSE, decides

OnCollapse = Enum("OnCollapse", ["stop", "continue"])  # in this form because `continue` is a keyword


class Resume(Enum):
    """Under which conditions a run that has edits already goes on."""

    same = "same"  # only under the code and package versions that began the run
    force = "force"  # under any
    whole = "whole"  # as same; where the journal is damaged, from its last whole record


@dataclass(frozen=True)
class RecordSettings:
    """Where the run is kept, how far it goes, how often it is measured and when it stops."""

    n_edits: int = field(metadata=decides(COURSE))
    eval_every: int = field(metadata=decides(COURSE))
    runs: str = field(metadata=decides(COURSE))  # folder of the run directories
    resume: Resume = field(metadata=decides(COURSE))
    on_collapse: OnCollapse = field(metadata=decides(COURSE))
    collapse_perplexity: float = field(metadata=decides(COURSE))  # a multiple of the unedited model's perplexity
