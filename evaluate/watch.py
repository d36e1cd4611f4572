"""Where every number goes once it is on the disk: W&B, then the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from afteredit.evaluate.display import Display
from afteredit.evaluate.editing import means
from afteredit.evaluate.interruption import Interruption
from afteredit.evaluate.tracker import Tracker


class Watch:
    def __init__(self, display: Display, tracker: Tracker, interruption: Interruption):
        self.display, self.tracker, self.interruption = display, tracker, interruption

    def doing(self, what: str) -> None:
        """Raises Interrupted: what begins here can be done again."""
        self.interruption.check()
        self.display.doing(what)

    def edit(self, record: Mapping[str, Any], n_new: int) -> None:
        immediate = means(record["immediate"], "edit/immediate")
        self.tracker.edit(record, immediate)
        success = ", ".join(
            f"{way} {immediate[key]:.0f}"
            for way in ("prob", "forced", "generated")
            if (key := f"edit/immediate/{way}/efficacy") in immediate
        )
        self.display.edited(record, n_new, success)

    def checkpoint(self, row: Mapping[str, Any]) -> None:
        self.tracker.checkpoint(row)
        self.display.measured(row)
