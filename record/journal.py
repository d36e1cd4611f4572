"""The journal of a run: append-only, and enough to rebuild the weights after any number of its edits.

Every record is whole on the disk (fsync, atomic rename, a checksum in each line) before the next edit begins; a torn
last line is set aside, since the edit that it would have recorded is made again.  A record that was altered is named
and refused, or with resume=whole set aside with all that follow; those edits are made again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path

from afteredit.edit.request import EditRequest
from afteredit.edit.update import Update, load_update
from afteredit.store.atomic_files import make_folder, write_atomically
from afteredit.store.checked_lines import Lines, Record
from afteredit.store.errors import BadInput
from afteredit.store.line_shapes import fault_of_edit
from afteredit.store.locks.of_a_run import hold
from afteredit.store.rows.stand_ins import refuse_stand_in


class Stopwatch:
    """Measures the seconds between two moments of a run; whoever holds it may start it anew."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Starts again at zero."""
        self._started = time.perf_counter()

    def seconds(self) -> float:
        """Returns the seconds since the last start."""
        return time.perf_counter() - self._started


class Journal:
    """The journal of the edits in `folder`; one process at a time holds it.

    `stopwatch` is started by whoever begins an edit; `append` stores what it says as the edit's seconds.
    """

    def __init__(self, folder: Path, *, fall_back: bool = False, read_only: bool = False, shared: bool = False):
        """Raises BadInput where another process holds the run, or where a record is damaged.

        With `fall_back` a damaged record is set aside together with those after it; with `read_only` nothing is.
        `shared`: the run is not held; who holds it may add records that this journal does not see.
        """
        self.folder, self.stopwatch = folder, Stopwatch()
        make_folder(folder / "updates")
        self._lock = None if shared else hold(folder)
        self.path = folder / "edits.jsonl"
        self._lines = Lines(self.path, fall_back=fall_back, read_only=read_only)
        self._lines.refuse(fault_of_edit)
        n_edits = 0
        for number, record in enumerate(self.records, start=1):
            if not _is_record(record, n_edits):
                raise BadInput(f"{self.path}:{number} is no record of an edit, or lines before it are missing or out "
                               "of order; restore it")  # fmt: skip
            n_edits = record["n_edits"]
        if fall_back:
            whole = [self._holds_update(index) for index in range(self.n_batches)]
            if not all(whole):
                self._lines.set_aside(whole.index(False), "has an update that does not match its checksum")

    def close(self) -> None:
        """Lets other processes hold the run."""
        if self._lock is not None:
            self._lock.release()

    @property
    def records(self) -> Sequence[Record]:
        """One record per batch of edits."""
        return self._lines.records

    @property
    def n_batches(self) -> int:
        return len(self.records)

    @property
    def n_lines(self) -> int:
        return self.n_batches

    @property
    def n_edits(self) -> int:
        return self.records[-1]["n_edits"] if self.records else 0

    @property
    def batches(self) -> list[list[EditRequest]]:
        """The requests of each record."""
        return [[request_of(stored) for stored in record["requests"]] for record in self.records]

    def append(self, batch: Sequence[EditRequest], update: Update) -> None:
        """Writes one batch: first its update, then the line that makes it count."""
        from safetensors.torch import save

        seconds = self.stopwatch.seconds()
        content = save(update.flat())
        path = self._update_path(self.n_batches)
        write_atomically(path, content)
        self._lines.append(
            {
                "n_edits": self.n_edits + len(batch),
                "requests": [request.content for request in batch],
                "update": str(path.relative_to(self.folder)),
                "sha256": hashlib.sha256(content).hexdigest(),
                "changes": sorted(update.changes),
                "diagnostics": dict(update.diagnostics),
                "edit_s": seconds,
            }
        )

    def update(self, index: int) -> Update:
        """Returns the stored update of a batch.  Raises BadInput where it is damaged or missing, or changes other
        matrices than its record names."""
        path = self._update_path(index)
        if not self._holds_update(index):
            refuse_stand_in(path)
            raise BadInput(f"{path} is missing or does not match the checksum in edits.jsonl; "
                           f"{self._lines.remedy(index)}")  # fmt: skip
        update = load_update(path)
        changed, named = sorted(update.changes), self.records[index].get("changes", sorted(update.changes))
        if changed != named:  # the records of an older version name none
            raise BadInput(f"{path} changes {', '.join(changed) or 'no matrix'}, but by edits.jsonl it changes "
                           f"{named}; restore it")  # fmt: skip
        return update

    def _update_path(self, index: int) -> Path:
        """Returns the path by the batch's place, not as the record names it: stored text never becomes a path."""
        return self.folder / f"updates/{index:06d}.safetensors"

    def _holds_update(self, index: int) -> bool:
        path = self._update_path(index)
        return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == self.records[index]["sha256"]

    def refuse_other_edits(self, batches: Sequence[Sequence[EditRequest]]) -> None:
        """Raises BadInput where a record holds other edits than its batch, or the same ids with other texts."""
        remedy = "the edit set has changed; change runs=<folder> to start over, or delete the run directory"
        for index, (record, batch) in enumerate(zip(self.records, batches, strict=False)):
            stored_ids, ids = [request["id"] for request in record["requests"]], [request.id for request in batch]
            if stored_ids != ids:
                raise BadInput(f"{self.folder}: batch {index} wrote edits {stored_ids}, the config asks for {ids}; "
                               f"{remedy}")  # fmt: skip
            for stored, request in zip(record["requests"], batch, strict=True):
                new = json.loads(json.dumps(request.content))  # tuples become lists
                for name in (name for name in stored if stored[name] != new.get(name)):
                    raise BadInput(f"{self.folder}: edit {request.named} was written with {name} {stored[name]!r}, the "
                                   f"config gives {new.get(name)!r}; {remedy}")  # fmt: skip


def _is_record(record: Record, n_edits_before: int) -> bool:
    """Tells whether a line with a right checksum, which anybody can write, holds what a record must."""
    if not all(key in record for key in ("sha256", "diagnostics", "edit_s")):
        return False
    try:
        return record["n_edits"] == n_edits_before + len([request_of(stored) for stored in record["requests"]])
    except (TypeError, AttributeError, BadInput):
        return False


def request_of(stored: Record) -> EditRequest:
    """Returns the request that a record holds."""
    return EditRequest(**stored)
