"""A constraint: only a share of every update is written."""

from __future__ import annotations

from dataclasses import dataclass, replace

from afteredit.edit.constraint import Unconstrained
from afteredit.edit.constraints.norm_cap import scaled
from afteredit.edit.update import Update


@dataclass(frozen=True)
class ShareOfUpdate(Unconstrained):
    share: float = 0.5

    def constrain(self, update: Update, W_now, W_base) -> Update:
        """Returns the update that is applied; W_now and W_base give the matrix of a name, as it is and unedited."""
        return replace(update, changes={name: scaled(change, self.share) for name, change in update.changes.items()})
