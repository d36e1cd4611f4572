"""Writes files that are either complete or absent, and that are on the disk when a call returns."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from afteredit.store.errors import NO_ROOM, BadInput
from afteredit.store.interruption import Interruption


def write_atomically(path: Path, content: bytes) -> None:
    """Writes the whole file or nothing.  The file is on the disk when this returns."""
    temporary = path.with_name(path.name + ".part")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as problem:
        temporary.unlink(missing_ok=True)  # leaves no half-written file on a full disk
        problem.filename = problem.filename or str(path)  # a full disk is told without a name
        raise
    sync(path.parent)


@contextmanager
def written_together(page: Path, sign: str) -> Iterator[Callable[[Path, bytes], None]]:
    """Yields a function that takes files: they take their places at the end, or none does where anything fails.

    They replace those of an earlier call, whose `page` holds `sign`.  Raises BadInput where one would replace another
    file: it is somebody's own.
    """
    again = page.is_file() and sign.encode() in page.read_bytes()
    places: dict[Path, Path] = {}

    def write(path: Path, content: bytes) -> None:
        refuse_others(path)
        temporary = path.with_name(path.name + ".part")
        places[temporary] = path
        write_atomically(temporary, content)

    def refuse_others(path: Path) -> None:
        if path.exists() and not again:
            raise BadInput(f"{path} is there already and was not written by this command; move it away, or give "
                           "another --out")  # fmt: skip

    refuse_others(page)  # before anything is drawn
    try:
        yield write
        with Interruption():  # a signal that comes now is too late
            for temporary, path in places.items():
                os.replace(temporary, path)
    finally:
        for temporary in places:
            temporary.unlink(missing_ok=True)


@contextmanager
def refusing_full_disks(what: str, remedy: str) -> Iterator[None]:
    """Raises BadInput where the disk has no room.  safetensors and tokenizers, which are written in Rust, say that by
    errors that are no OSError: "No space left on device (os error 28)"."""
    try:
        yield
    except Exception as problem:
        said = re.search(r"\(os error (\d+)\)", str(problem))
        number = problem.errno if isinstance(problem, OSError) else int(said[1]) if said else None
        if number is None or number not in NO_ROOM:
            raise
        raise BadInput(f"{what} cannot be written ({os.strerror(number)}); {remedy}") from None


def as_new_files(path: Path) -> None:
    """Gives a file, or all files in a folder, the rights that the user's umask gives new ones: safetensors makes its
    files readable for the user alone."""
    umask = os.umask(0)
    os.umask(umask)
    for file in (file for file in [path, *path.rglob("*")] if file.is_file()):
        file.chmod(0o666 & ~umask)


def sync(path: Path) -> None:
    """Waits until a file's content, or the list of a folder's files, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Makes the folder and its missing parents.  They are on the disk when this returns."""
    if not folder.is_dir():
        if not folder.parent.is_dir():
            make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically."""
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n")
