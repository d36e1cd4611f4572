"""Where every number goes once it is on the disk: W&B, then the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from afteredit.evaluate.metrics.editing_success import means
from afteredit.launch.endings import Interruption
from afteredit.record.results import Results
from afteredit.record.terminal import Display
from afteredit.record.tracker import Tracker


class Watch:
    def __init__(self, display: Display, tracker: Tracker, interruption: Interruption, results: Results):
        self.display, self.tracker, self.interruption, self.results = display, tracker, interruption, results

    def doing(self, what: str) -> None:
        """Raises Interrupted: what begins here can be done again."""
        self.interruption.check()
        self.display.doing(what)

    def edit(self, record: Mapping[str, Any], n_new: int) -> None:
        immediate = self._track(record)
        success = ", ".join(
            f"{way} {immediate[key]:.0f}"
            for way in ("prob", "forced", "generated")
            if (key := f"edit/immediate/{way}/efficacy") in immediate
        )
        self.display.edited(record, n_new, success)

    def checkpoint(self, row: Mapping[str, Any]) -> None:
        self.tracker.checkpoint(row)
        self.display.measured(row)

    def beyond(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Edits that the journal holds beyond those of this command: W&B keeps them too."""
        for record in records:
            self._track(record)

    def _track(self, record: Mapping[str, Any]) -> dict[str, float]:
        """One edit, with the checkpoint after it where there is one, this command's or not."""
        immediate = means(record["immediate"], "edit/immediate")
        self.tracker.edit(record, immediate)
        if self.results.has(record["n_edits"]):
            self.tracker.checkpoint(self.results.row(record["n_edits"]))
        return immediate
