"""The run directory: append-only, from which the weights after any n edits are rebuilt.

Every record reaches the disk whole (fsync, atomic rename, a checksum in each line) before the next edit begins; a torn
last line is dropped, since the edit it would have recorded is made again.  What was altered is named and refused, or,
where the user asks for it (resume=whole), set aside with all that follows: those edits are made again.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from afteredit.edit.request import EditRequest
from afteredit.edit.update import Update, load_update
from afteredit.store.atomic_files import make_folder, write_atomically
from afteredit.store.checked_lines import Lines, Record
from afteredit.store.errors import BadInput

log = logging.getLogger(__name__)


class Journal:
    """The journal of edits in `folder`; held by one process at a time."""

    def __init__(self, folder: Path, *, fall_back: bool = False):
        """Raises BadInput where another process has the run, or a record is damaged; with `fall_back`, that record and
        those behind it are set aside."""
        from filelock import FileLock, Timeout

        self.folder = folder
        make_folder(folder / "updates")
        self._lock = FileLock(folder / ".lock")
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            raise BadInput(f"{folder} is in use by another process; wait for it, or change seed or config") from None
        self._lines = Lines(folder / "edits.jsonl", fall_back=fall_back)
        if fall_back:
            whole = [self._holds_update(index) for index in range(self.n_batches)]
            if not all(whole):
                self._lines.set_aside(whole.index(False), "has an update that does not match its checksum")

    def close(self) -> None:
        self._lock.release()

    @property
    def records(self) -> Sequence[Record]:
        return self._lines.records

    @property
    def n_batches(self) -> int:
        return len(self.records)

    @property
    def n_edits(self) -> int:
        return self.records[-1]["n_edits"] if self.records else 0

    def append(self, batch: Sequence[EditRequest], update: Update, n_edits: int, measured: Mapping[str, Any]) -> None:
        """Writes one batch: its update first, then the line that makes it count."""
        from safetensors.torch import save

        content = save(update.flat())
        path = self._update_path(self.n_batches)
        write_atomically(path, content)
        self._lines.append(
            {
                "n_edits": n_edits,
                "requests": [asdict(request) for request in batch],
                "update": str(path.relative_to(self.folder)),
                "sha256": hashlib.sha256(content).hexdigest(),
                "diagnostics": dict(update.diagnostics),
                **measured,
            }
        )

    def update(self, index: int, batch: Sequence[EditRequest]) -> Update:
        """The stored update of one batch.  Raises BadInput where it is damaged, missing, or of other requests."""
        self.refuse_other_edits(index, batch)
        path = self._update_path(index)
        if not self._holds_update(index):
            raise BadInput(f"{path} is missing or does not match the checksum in edits.jsonl; "
                           f"{self._lines.remedy(index)}")  # fmt: skip
        return load_update(path)

    def _update_path(self, index: int) -> Path:
        """By place, not as the record names it: nothing that is read becomes a path."""
        return self.folder / f"updates/{index:06d}.safetensors"

    def _holds_update(self, index: int) -> bool:
        path = self._update_path(index)
        return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == self.records[index]["sha256"]

    def refuse_other_edits(self, index: int, batch: Sequence[EditRequest]) -> None:
        """Raises BadInput where batch `index` wrote other edits, or the same ids with other texts (other columns)."""
        stored = self.records[index]["requests"]
        remedy = "the edit set has changed; change runs=<folder> to start over, or delete the run directory"
        before, now = [request["id"] for request in stored], [request.id for request in batch]
        if before != now:
            raise BadInput(f"{self.folder}: batch {index} wrote edits {before}, the config asks for {now}; {remedy}")
        for old, request in zip(stored, batch, strict=True):
            new = json.loads(json.dumps(asdict(request)))  # tuples become lists
            for name in (name for name in old if old[name] != new.get(name)):
                raise BadInput(f"{self.folder}: edit {request.id} was written with {name} {old[name]!r}, the config "
                               f"gives {new.get(name)!r}; {remedy}")  # fmt: skip


def request_of(stored: Record) -> EditRequest:
    """The request that a record holds; JSON knows lists only."""
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
    return EditRequest(**fields)
