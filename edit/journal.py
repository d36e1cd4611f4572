"""The run directory: append-only, from which the weights after any n edits are rebuilt.

Every record reaches the disk whole (fsync, atomic rename, a checksum in each line) before the next edit begins; a torn
last line is dropped, since the edit it would have recorded is made again.  What was altered is named and refused, or,
where the user asks for it (resume=whole), set aside with all that follows: those edits are made again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from afteredit.edit.disk import make_folder, sync, write_atomically, write_json
from afteredit.edit.request import BadInput, EditRequest
from afteredit.edit.update import Update, load_update

log = logging.getLogger(__name__)

Record = dict[str, Any]


class Lines:
    """A JSON-lines file whose every line carries its own checksum under `check`."""

    def __init__(self, path: Path, *, fall_back: bool = False):
        """Reads what is there.  A broken last line is cut off; a broken line before others raises BadInput, or with
        `fall_back` is set aside with all that follow."""
        self.path = path
        self.records: list[Record] = []
        if not path.exists():
            return
        content = path.read_bytes()
        whole = 0
        lines = content.splitlines(keepends=True)
        for number, line in enumerate(lines, start=1):
            record = _checked(line)
            if record is None:
                if number == len(lines):
                    log.warning("%s:%d: torn or altered last line dropped; it is made again", path, number)
                    self._truncate(whole)
                elif fall_back:
                    self.set_aside(number - 1, "does not match its checksum")
                else:
                    raise BadInput(f"{path}:{number}: the line does not match its checksum: the file was altered; "
                                   f"{self.remedy(number - 1)}")  # fmt: skip
                return
            self.records.append(record)
            whole += len(line)

    def remedy(self, n_whole: int) -> str:
        return (f"restore it, or add resume=whole to go on from the {n_whole} records before it (the rest is kept in "
                f"{self.path.name}.damaged)")  # fmt: skip

    def set_aside(self, n_whole: int, why: str) -> None:
        """Leaves the first `n_whole` records; the lines behind them are kept in `<name>.damaged`."""
        lines = self.path.read_bytes().splitlines(keepends=True)
        kept = self.path.with_name(f"{self.path.name}.damaged")
        write_atomically(kept, (kept.read_bytes() if kept.exists() else b"") + b"".join(lines[n_whole:]))
        self._truncate(sum(map(len, lines[:n_whole])))
        del self.records[n_whole:]
        log.warning(
            "%s:%d %s: it and what follows are set aside in %s and made again", self.path, n_whole + 1, why, kept
        )

    def _truncate(self, n_bytes: int) -> None:
        with open(self.path, "r+b") as file:
            file.truncate(n_bytes)
            os.fsync(file.fileno())

    def append(self, record: Mapping[str, Any]) -> None:
        text = json.dumps(record, ensure_ascii=False, sort_keys=True)
        line = json.dumps({**json.loads(text), "check": _digest(text)}, ensure_ascii=False, sort_keys=True)
        new = not self.path.exists()
        with open(self.path, "ab") as file:
            file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if new:
            sync(self.path.parent)
        self.records.append(json.loads(text))


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


def write_checked(path: Path, value: Mapping[str, Any]) -> None:
    """As `write_json`, with a checksum under `check`."""
    write_json(path, {**value, "check": _digest(json.dumps(value, ensure_ascii=False, sort_keys=True))})


def read_checked(path: Path) -> Record:
    """Raises BadInput where the file is missing, or not as `write_checked` left it."""
    record = _checked(path.read_bytes()) if path.is_file() else None
    if record is None:
        raise BadInput(f"{path} is missing or does not match its checksum: it is damaged; restore it, or change "
                       "runs=<folder> to start over")  # fmt: skip
    return record


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _checked(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
        check = record.pop("check")
    except (ValueError, KeyError, AttributeError, TypeError):
        return None
    whole = line.endswith(b"\n") and check == _digest(json.dumps(record, ensure_ascii=False, sort_keys=True))
    return record if whole else None
