"""Reads and writes JSON and JSON-lines files that carry their own checksums, so that a change on the disk is found."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from afteredit.store.atomic_files import sync, write_atomically, write_json
from afteredit.store.errors import BadInput

log = logging.getLogger(__name__)

Record = dict[str, Any]


class Lines:
    """A JSON-lines file.  Every line carries its own checksum under `check`."""

    def __init__(self, path: Path, *, fall_back: bool = False):
        """Reads the file, if there is one.

        A damaged last line is cut off.  A damaged line before others raises BadInput; with `fall_back`, it and all
        lines after it are set aside instead.
        """
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
                    log.warning("%s:%d: incomplete or altered last line dropped; it is made again", path, number)
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
        """Says what the user can do when only the first `n_whole` records are undamaged."""
        return (f"restore it, or add resume=whole to go on from the {n_whole} records before it (the rest is kept in "
                f"{self.path.name}.damaged)")  # fmt: skip

    def set_aside(self, n_whole: int, why: str) -> None:
        """Keeps the first `n_whole` records and moves the lines after them to `<name>.damaged`."""
        lines = self.path.read_bytes().splitlines(keepends=True)
        damaged = self.path.with_name(f"{self.path.name}.damaged")
        before = damaged.read_bytes() if damaged.exists() else b""
        write_atomically(damaged, before + b"".join(lines[n_whole:]))
        self._truncate(sum(map(len, lines[:n_whole])))
        del self.records[n_whole:]
        log.warning(
            "%s:%d %s: it and what follows are set aside in %s and made again", self.path, n_whole + 1, why, damaged
        )

    def _truncate(self, n_bytes: int) -> None:
        with open(self.path, "r+b") as file:
            file.truncate(n_bytes)
            os.fsync(file.fileno())

    def append(self, record: Mapping[str, Any]) -> None:
        """Adds one line, which is on the disk when this returns."""
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


def write_checked(path: Path, value: Mapping[str, Any]) -> None:
    """Writes `value` as indented JSON with its checksum under `check`."""
    write_json(path, {**value, "check": _digest(json.dumps(value, ensure_ascii=False, sort_keys=True))})


def read_checked(path: Path) -> Record:
    """Returns what `write_checked` wrote.  Raises BadInput if the file is missing or was changed since."""
    record = _checked(path.read_bytes()) if path.is_file() else None
    if record is None:
        raise BadInput(f"{path} is missing or does not match its checksum: it is damaged; restore it, or change "
                       "runs=<folder> to start over")  # fmt: skip
    return record


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_lines(path: Path) -> list[Record]:
    """Returns the records of a JSON-lines file, which a run may still be writing; an empty list if there is no file.

    Changes nothing.  An incomplete last line is left out, and a line without a checksum is taken as it is.  Raises
    BadInput if another line is no JSON object or does not match its checksum.
    """
    lines = path.read_bytes().removesuffix(b"\n").split(b"\n") if path.exists() else []  # texts may hold U+2028
    records = [_without_check(line) for line in lines]
    if records and records[-1] is None:
        del records[-1]
    if None in records:
        raise BadInput(f"{path}:{records.index(None) + 1} is damaged: no JSON object that matches its checksum; "
                       "restore it")  # fmt: skip
    return [record for record in records if record is not None]


def _checked(line: bytes) -> Record | None:
    return _without_check(line, required=True) if line.endswith(b"\n") else None


def _without_check(line: bytes, *, required: bool = False) -> Record | None:
    """Returns the record of a line; None if the checksum does not match, or is `required` and absent."""
    try:
        record = json.loads(line)
        check = record.pop("check") if required else record.pop("check", None)
    except (ValueError, KeyError, AttributeError, TypeError):
        return None
    text = json.dumps(record, ensure_ascii=False, sort_keys=True)
    return record if check == _digest(text) or (check is None and not required) else None
