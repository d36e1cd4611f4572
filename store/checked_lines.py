"""Reads and writes the files of a run directory, which carry their own checksums: a change on the disk is found.

They may come from a stranger: they are data, and nothing in them is run, resolved or followed to another place.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from afteredit.store.atomic_files import sync, write_atomically, write_json
from afteredit.store.errors import BadInput
from afteredit.store.plain_json import read_json
from afteredit.store.plain_yaml import PlainLoader

log = logging.getLogger(__name__)

Record = dict[str, Any]
FaultOf = Callable[[Record, Sequence[Record]], str | None]  # of a record and those before it
FOLDERS = ("updates", "samples")  # those of a run directory that are read
FILES = (".jsonl", ".json", ".yaml", ".parquet", ".safetensors")
CHECK = b"# sha256 of what follows: "


class Lines:
    """A JSON-lines file.  Every line carries its own checksum under `check`."""

    def __init__(self, path: Path, *, fall_back: bool = False, read_only: bool = False):
        """Reads the file, if there is one.

        A torn last line, one without a line feed, does not count: it is set aside, with `read_only` only before a line
        is appended.  A line that was altered raises BadInput; with `fall_back`, it and all lines after it are set aside
        instead.
        """
        self.path = path
        self.records: list[Record] = []
        self._torn = False
        for number, line in enumerate(_lines(path), start=1):
            if not line.endswith(b"\n"):
                self._torn = True
                break
            record = _without_check(line, required=True)
            if record is None and fall_back:
                self.set_aside(number - 1, "does not match its checksum")
                return
            if record is None:
                raise BadInput(f"{path}:{number}: the line does not match its checksum: the file was altered; "
                               f"{self.remedy(number - 1)}")  # fmt: skip
            self.records.append(record)
        if not read_only:
            self._set_torn_line_aside()

    def _set_torn_line_aside(self) -> None:
        if self._torn:
            self.set_aside(len(self.records), "is incomplete")
            self._torn = False

    def refuse(self, fault_of: FaultOf) -> None:
        """Raises BadInput for the first record that `fault_of` finds wrong: anybody can write a right checksum."""
        for place, record in enumerate(self.records):
            wrong = fault_of(record, self.records[:place])
            if wrong:
                raise BadInput(f"{self.path}:{place + 1} is damaged: {wrong}; restore it")

    def remedy(self, n_whole: int) -> str:
        """Says what the user can do when only the first `n_whole` records are undamaged."""
        return (f"restore it, or add resume=whole to the run's own command to go on from the {n_whole} records before "
                f"it (the rest is kept in {self.path.name}.damaged)")  # fmt: skip

    def set_aside(self, n_whole: int, why: str) -> None:
        """Keeps the first `n_whole` records and moves the lines after them to `<name>.damaged`."""
        lines = _lines(self.path)
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
        self._set_torn_line_aside()
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

    def remove(self, place: int) -> None:
        """Takes out the line at this place, counted from 0."""
        self._set_torn_line_aside()
        lines = _lines(self.path)
        write_atomically(self.path, b"".join(lines[:place] + lines[place + 1 :]))
        del self.records[place]


def write_checked(path: Path, value: Mapping[str, Any]) -> None:
    """Writes `value` as indented JSON with its checksum under `check`."""
    write_json(path, {**value, "check": _digest(json.dumps(value, ensure_ascii=False, sort_keys=True))})


def read_checked(path: Path) -> Record:
    """Returns what `write_checked` wrote.  Raises BadInput if the file is missing or was changed since."""
    record = _without_check(path.read_bytes(), required=True) if path.is_file() else None
    if record is None:
        raise BadInput(f"{path} is missing or does not match its checksum: it is damaged; restore it, or change "
                       "runs=<folder> to start over")  # fmt: skip
    return record


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_lines(path: Path, fault_of: FaultOf = lambda _record, _before: None, *,
               required: bool = True) -> tuple[list[Record], list[str]]:  # fmt: skip
    """Returns the records of a JSON-lines file, and a sentence about what is left out or unsure; changes nothing.

    A line is left out where it is no JSON object, does not match its checksum, or holds what `fault_of` names.  In the
    files of an older version (not `required`) a line may have no checksum.
    """
    records: list[Record] = []
    faults, unchecked = [], 0
    for number, line in enumerate(_lines(path), start=1):
        record = _without_check(line, required=required) if line.endswith(b"\n") or not required else None
        wrong = None if record is None else fault_of(record, records)
        if wrong:
            faults.append(f"{path}:{number} is damaged: {wrong}; it is left out: restore it")
            continue
        if record is not None:
            records.append(record)
            unchecked += b'"check"' not in line
            continue
        torn = "is incomplete" if not line.endswith(b"\n") else "is damaged: no JSON object that matches its checksum"
        faults.append(f"{path}:{number} {torn}; it is left out: restore it")
    if unchecked:
        faults.append(f"{path} was written by an older version, {unchecked} of its lines without a checksum: whether "
                      "they were altered is not known")  # fmt: skip
    return records, faults


def _lines(path: Path) -> list[bytes]:
    """Returns the lines with their line feeds; texts may hold other line ends.  None where there is no file."""
    content = path.read_bytes() if path.exists() else b""
    return re.findall(rb"[^\n]*\n|[^\n]+", content)


def _without_check(line: bytes, *, required: bool = False) -> Record | None:
    """Returns the record of a line; None if the checksum does not match, or is `required` and absent."""
    try:
        record = read_json(line)
        check = record.pop("check") if required else record.pop("check", None)
        matches = check is None or check == _digest(json.dumps(record, ensure_ascii=False, sort_keys=True))
    except (ValueError, KeyError, AttributeError, TypeError):
        return None
    return record if matches and not (required and check is None) else None


def refuse_strange_files(folder: Path) -> None:
    """Raises BadInput where a run directory holds a symbolic link, a pipe or a device among what is read of it, a file
    in the place of a folder, or a folder in the place of a file."""
    for inner in (folder, *(folder / name for name in FOLDERS)):
        if inner.exists() and not inner.is_dir():
            raise BadInput(f"{inner} is no folder; restore it, or take it out of the run directory")
        for path in sorted(inner.iterdir()) if inner.is_dir() else ():
            if path.is_symlink():
                raise BadInput(f"{path} is a symbolic link; in a run directory only files and folders of its own are "
                               "read: put the file itself in its place")  # fmt: skip
            if not (path.is_file() or path.is_dir()):
                raise BadInput(f"{path} is neither a file nor a folder; take it out of the run directory")
            if path.is_dir() and (path.suffix in FILES or path.name == ".lock"):
                raise BadInput(f"{path} is a folder, where a run has a file; restore it, or take it out of the run "
                               "directory")  # fmt: skip


def with_check(config_yaml: bytes) -> bytes:
    """Returns a YAML file with its checksum as a comment in the first line."""
    return CHECK + hashlib.sha256(config_yaml).hexdigest().encode() + b"\n" + config_yaml


def of_an_older_version(folder: Path) -> bool:
    """Tells whether an older version wrote the run directory: its environment.json does not say which model was
    edited.  Only there a config.yaml, or a line, without a checksum is in order."""
    environment = folder / "environment.json"
    return environment.is_file() and re.search(rb'^  "model":', environment.read_bytes(), re.M) is None


def config_fault(path: Path) -> str | None:
    """Returns a sentence about a stored config that is not as it was written, or that may not be; else None."""
    content = path.read_bytes() if path.is_file() else b""
    if content == with_check(content.partition(b"\n")[2]):
        return None
    if of_an_older_version(path.parent) and not content.startswith(CHECK):
        return f"{path} was written by an older version, without a checksum: whether it was altered is not known"
    return f"{path} does not match its checksum, or lacks it: it was altered after the run wrote it; restore it"


def read_config(path: Path) -> dict[str, Any]:
    """Returns a stored config as plain data: nothing in it is looked up or built.  Raises BadInput."""
    try:
        config = PlainLoader(path.read_text(encoding="utf-8")).get_single_data()
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as problem:
        raise BadInput(f"{path} cannot be read ({' '.join(str(problem).split())}); restore it") from None
    if not isinstance(config, dict):
        raise BadInput(f"{path} is no config; restore it")
    return {str(key): value for key, value in config.items()}
