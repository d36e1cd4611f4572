"""Measures the checkpoints that a run has left: any number of processes do so, on any machines that see its folder.

Each takes a lease on one checkpoint after another (store/locks) and rebuilds its weights from the journal, as a replay
does, while the run may still be edited.  The row at 0 edits is stored before any other, since what is retained is a
share of it.  Who stores the last row ends the run: curves, summary, W&B; where it dies before that, another does.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from afteredit.commands.rebuild import RebuiltRun
from afteredit.edit.constraint import view_file
from afteredit.evaluate.abilities.build import check_files
from afteredit.launch.experiment import Experiment, SpeedSettings
from afteredit.launch.opening import decides_measurement
from afteredit.launch.overrides import quoted
from afteredit.launch.stored_config import as_command, named_speed_keys, rows_named_in, tracking_of
from afteredit.record.display.run_display import Display
from afteredit.record.recorder import Recorder
from afteredit.record.run_directory import RunDirectory
from afteredit.record.terminal import PlainConsole, bold
from afteredit.store.checked_lines import read_config
from afteredit.store.code_version import measuring_version
from afteredit.store.interruption import Interruption
from afteredit.store.locks.lease import Lease, claim, is_claimed
from afteredit.store.locks.of_a_run import claim_checkpoint, is_edited, refuse_lone_editing, results_held

POLL = 1.0  # seconds between two looks at what other processes have left


def measure_pending(x: Experiment, folder: Path, console: PlainConsole) -> None:
    """Measures what is pending, beside other processes that do the same, until nothing is; then ends the run, unless
    another process measured the last.

    Raises BadInput where a process edits the run and measures it itself; Interrupted, with every row stored kept.
    """
    check_files(x.tasks, x.settings)
    with Interruption() as interruption:
        work = Pending(x, folder, console, interruption)
        for n_edits, lease in work.claims():
            try:
                work.measure(n_edits)
            finally:
                lease.release()
        if work.is_whole:
            work.end()
    console.print(f"results  {work.rebuilt.run.results.path}", highlight=False, soft_wrap=True)


class Pending:
    """What one process does for a run under one evaluation.  `is_whole`: every checkpoint is measured."""

    def __init__(self, x: Experiment, folder: Path, console: PlainConsole, interruption: Interruption):
        self.folder, self.console, self.interruption = folder, console, interruption
        self.seconds, self.is_whole = x.replay.lease_s, False
        self._found_nothing = True
        self._end: Lease | None = None  # on the end of the run
        self._open = partial(RunDirectory, folder, x.settings, decides_measurement(x),
                             measuring_version(view_file(x.constraint)), single=x.settings.single, read_only=True,
                             shared=True)  # fmt: skip
        with self._results() as run:
            speed = run.environment["speed"]
            if speed and not named_speed_keys(x):  # those that the run went by
                kept = {key: value for key, value in speed[-1].items() if key != "after_edits"}
                x = dataclasses.replace(x, speed=SpeedSettings(**kept))
            self.x, self.rebuilt = x, RebuiltRun(x, run, console, interruption)

    @contextmanager
    def _results(self) -> Iterator[RunDirectory]:
        """Gives the run as it is on the disk now, which no other process changes inside."""
        with results_held(self.folder, self.seconds, self.interruption.check), self._open() as run:
            yield run

    def claims(self) -> Iterator[tuple[int, Lease]]:
        """Yields one number of edits after another to be measured, with the lease on it; waits while others measure,
        or edits are made.  Logs what stays pending where nobody is at work on it."""
        said = ""
        while True:
            self.interruption.check()
            edited = is_edited(self.folder)  # before looking at the edits, of which the last may come now
            with self._results() as run:
                ready, n_edits, end = run.ready(), run.journal.n_edits, run.end
                claimed = self._claim(run, ready)
            if claimed is not None:
                self.rebuilt.follow(run)
                self._found_nothing = False
                yield claimed
                continue
            self.is_whole = n_edits >= end and not run.missing(run.journal.batches)
            if self.is_whole:
                return
            self._found_nothing = False
            if not ready and not edited:
                break
            waiting = f"{len(ready)} checkpoints are measured by other processes" if ready else "edits are being made"
            if waiting != said:
                self.console.log(f"waiting: {waiting}")
            said = waiting
            time.sleep(POLL)
        self.console.log(bold(f"{n_edits} of {end} edits are made and measured", "; the run's own command goes on"))

    def _claim(self, run: RunDirectory, ready: list[int]) -> tuple[int, Lease] | None:
        for n_edits in ready:
            lease = claim_checkpoint(self.folder, run.results.digest, n_edits, self.seconds)
            if lease is not None:
                try:
                    refuse_lone_editing(self.folder)  # it refuses to begin where it sees a lease
                except BaseException:
                    lease.release()
                    raise
                return n_edits, lease
        return None

    def measure(self, n_edits: int) -> None:
        """Measures and stores one checkpoint, unless a process that took over the lease has."""
        sha256, measured = self.rebuilt.measured(n_edits)
        while n_edits and not self._measured_unedited():
            time.sleep(POLL)
        with self._results() as run:
            if run.results.has(n_edits):
                return
            if run.journal.n_edits >= run.end and run.missing(run.journal.batches) == [n_edits]:
                self._end = claim(self._place_of_the_end(run), self.seconds)
            run.add_checkpoint(n_edits, sha256, measured)
            self.rebuilt.say(run.results.row(n_edits))

    def _measured_unedited(self) -> bool:
        """Tells whether the row at 0 edits is there; measures it where no other process does."""
        self.interruption.check()
        with self._results() as run:
            if run.results.has(0):
                return True
            claimed = self._claim(run, [0])
        if claimed is not None:
            try:
                self.measure(0)
            finally:
                claimed[1].release()
        return False

    def _place_of_the_end(self, run: RunDirectory) -> Path:
        return self.folder / "leases" / f"{run.results.digest}-end"

    def end(self) -> None:
        """Ends the run, unless another process does: waits for it, and takes over where it dies."""
        with self._results() as run:
            place, alone = self._place_of_the_end(run), self._found_nothing
        while self._end is None:
            if is_claimed(place):
                alone = False
            elif not alone:
                return  # it was ended by who stored the last row, and held this lease since before
            self._end = claim(place, self.seconds)
            if self._end is None:
                self.interruption.check()
                time.sleep(POLL)
        try:
            display = Display(self.console, run.journal.batches, run.settings.due)
            record = Recorder(run, display, self.interruption.check)
            with record.tracked(self.x.tracker, tracking_of(run.folder, run.environment)):
                end_run(run, record)
        finally:
            self._end.release()


def end_run(run: RunDirectory, record: Recorder) -> None:
    """Ends a run that is measured: curves, summary, tables, W&B.  Of one that is not, says how the rest is measured."""
    from afteredit.analysis.tables.run_end import run_end

    if record.n_pending:
        console = record.display.console
        rows = rows_named_in(read_config(run.folder / "config.yaml"))
        command = as_command([quoted("replay.run", str(run.folder)), "replay.pending=true", *rows])
        console.log(bold(f"{record.n_pending} checkpoints are left", "; one or more of these commands measure them"))
        console.print(f"pending  {command}", highlight=False, soft_wrap=True)
        return
    shown = run_end(run.folder, run.results.digest, run.settings.n_edits)
    record.finish(shown.summary, shown.tables, shown.picture, shown.said)
