"""The run directory: append-only, from which the weights after any n edits are rebuilt.

Every record reaches the disk whole (fsync, atomic rename, a checksum in each line) before the next edit begins; a torn
last line is dropped, since the edit it would have recorded is made again.
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

from afteredit.edit.request import BadInput, EditRequest
from afteredit.edit.update import Update, load_update

log = logging.getLogger(__name__)

Record = dict[str, Any]


class Lines:
    """A JSON-lines file whose every line carries its own checksum under `check`."""

    def __init__(self, path: Path):
        """Reads what is there.  A broken last line is cut off; a broken line before others raises BadInput."""
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
                if number < len(lines):
                    raise BadInput(f"{path}:{number}: the line does not match its checksum: the file was altered; "
                                   "restore it, or delete the run directory to start over")  # fmt: skip
                log.warning("%s:%d: torn last line dropped; it is made again", path, number)
                with open(path, "r+b") as file:
                    file.truncate(whole)
                return
            self.records.append(record)
            whole += len(line)

    def append(self, record: Mapping[str, Any]) -> None:
        text = json.dumps(record, ensure_ascii=False, sort_keys=True)
        line = json.dumps({**json.loads(text), "check": _digest(text)}, ensure_ascii=False, sort_keys=True)
        with open(self.path, "ab") as file:
            file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.records.append(json.loads(text))


class Journal:
    """The journal of edits in `folder`; held by one process at a time."""

    def __init__(self, folder: Path):
        """Raises BadInput where another process has the run, or a record is damaged."""
        from filelock import FileLock, Timeout

        self.folder = folder
        (folder / "updates").mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(folder / ".lock")
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            raise BadInput(f"{folder} is in use by another process; wait for it, or change seed or config") from None
        self._lines = Lines(folder / "edits.jsonl")

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
        name = f"updates/{self.n_batches:06d}.safetensors"
        write_atomically(self.folder / name, content)
        self._lines.append(
            {
                "n_edits": n_edits,
                "requests": [asdict(request) for request in batch],
                "update": name,
                "sha256": hashlib.sha256(content).hexdigest(),
                "diagnostics": dict(update.diagnostics),
                **measured,
            }
        )

    def update(self, index: int, batch: Sequence[EditRequest]) -> Update:
        """The stored update of one batch.  Raises BadInput where it is damaged, missing, or of other requests."""
        self.refuse_other_edits(index, batch)
        record = self.records[index]
        path = self.folder / record["update"]
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != record["sha256"]:
            raise BadInput(f"{path} is missing or does not match the checksum in edits.jsonl; restore it, or "
                           "delete the run directory to start over")  # fmt: skip
        return load_update(path)

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


def write_atomically(path: Path, content: bytes) -> None:
    """All or nothing, and on the disk when this returns."""
    temporary = path.with_name(path.name + ".part")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)  # a full disk is not left fuller
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_json(path: Path, value: Any) -> None:
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n")


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
    except (ValueError, KeyError, AttributeError):
        return None
    whole = line.endswith(b"\n") and check == _digest(json.dumps(record, ensure_ascii=False, sort_keys=True))
    return record if whole else None
