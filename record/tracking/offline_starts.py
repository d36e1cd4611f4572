"""The starts of one W&B run on this disk: `wandb sync` is to take the one that holds the most.

A run that is stopped and started again leaves one folder per start, all under one W&B id.  `wandb sync` would send the
rows of every one of them (wandb 0.31), so that numbers would be there twice; a start that holds a marker file is left
out by it.
"""

from __future__ import annotations

from pathlib import Path


class OfflineStarts:
    """Marks either this start or the earlier ones as not to be sent."""

    def __init__(self, start: Path, run_id: str, held: int):
        """`start`: the folder of this start.  `held`: the last step that the earlier starts hold together."""
        self._start, self._id, self._held = start, run_id, held
        self._earlier = [p for p in start.parent.glob(f"*run-????????_??????-{run_id}") if p != start]
        if self._earlier:  # until this start holds as much as they do
            self._mark(start).touch()

    def sent(self, step: int) -> None:
        """Takes the place of the earlier starts once this start has been given more than they hold.

        One step more than they hold, since W&B writes a row to the disk up to a second after it was given.
        """
        if self._earlier and step > self._held:
            self._take_over()

    def ended(self, step: int, whole: bool) -> None:
        """Takes their place at the end of this start where it holds as much as they do, or where the run is `whole`."""
        if self._earlier and (whole or step >= self._held):
            self._take_over()

    def _take_over(self) -> None:
        self._mark(self._start).unlink(missing_ok=True)
        for earlier in self._earlier:
            self._mark(earlier).touch()
        self._earlier = []

    def _mark(self, start: Path) -> Path:
        return start / f"run-{self._id}.wandb.synced"
