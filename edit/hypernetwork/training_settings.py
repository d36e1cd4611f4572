"""The keys that decide how MEND's hypernetwork is trained; Mend inherits them as keys of its own."""

from __future__ import annotations

from dataclasses import dataclass, field

from afteredit.edit.method import check_numbers
from afteredit.store.field_roles import NOTHING, decides


@dataclass(frozen=True)
class TrainingSettings:
    rank: int = 1920  # of the hypernetwork's matrices
    alpha: float = 1e-4  # step size that every matrix starts from; learned
    edit_weight: float = 0.1  # c_edit: weight of the edit's loss against the KL at a neighbour
    steps: int = 100_000
    batch: int = 10  # training rows of one step, each an edit of its own
    learning_rate: float = 1e-6  # Adam's, for the network
    alpha_learning_rate: float = 1e-4  # Adam's, for the step sizes
    max_gradient: float = 100.0  # norm that the gradient is clipped to
    validate_every: int = 500  # steps; the network that does best on rows held back is used
    checkpoint_minutes: float = field(default=1.0, metadata=decides(NOTHING))  # most that a killed training loses
    # steps in a row that may be skipped for a loss or gradient that is not finite
    max_skipped: int = field(default=10, metadata=decides(NOTHING))

    def __post_init__(self) -> None:
        check_numbers(self, rank="at least 1", steps="at least 1", batch="at least 1", validate_every="at least 1",
                      learning_rate="at least 0", alpha_learning_rate="at least 0", edit_weight="at least 0",
                      max_gradient="above 0", checkpoint_minutes="at least 0", max_skipped="at least 0")  # fmt: skip
