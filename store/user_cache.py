"""The user's cache holds constants that many runs share.  A file's name contains a hash of everything its content
depends on, and one process at a time makes a file.

Every file, and every folder, has its SHA-256 in a second file.  One that does not match its SHA-256 is named in the log
and made again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from afteredit.store.atomic_files import as_new_files, refusing_full_disks, sync, write_atomically
from afteredit.store.errors import BadInput
from afteredit.store.progress.work import working

log = logging.getLogger(__name__)


class NoCache(BadInput):
    """The cache cannot be used: there is nothing wrong with what was to be made in it."""


def cache_folder() -> Path:
    """Returns $AFTEREDIT_CACHE if it is set, else the folder `afteredit` in $XDG_CACHE_HOME or ~/.cache.

    Raises NoCache where there is no home directory, as for a user of a container without an entry or HOME.
    """
    chosen = os.environ.get("AFTEREDIT_CACHE")
    if chosen:
        return Path(chosen)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "afteredit"
    except RuntimeError:
        raise NoCache("the cache has no place, since this user has no home directory (HOME is not set); set "
                      "AFTEREDIT_CACHE to a folder that can be read and written") from None  # fmt: skip


def content_hash(decides: Any) -> str:
    """Returns the first sixteen hex digits of the SHA-256 of a description that JSON can hold."""
    text = json.dumps(decides, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def cache_key(format_number: int, decides: Mapping[str, Any]) -> str:
    """Returns the hash that names a cached file by all that `decides` its content.

    `format_number` belongs to the code that computes the content, and is raised when that code computes something else:
    files from before are then found no more.
    """
    return content_hash({"format": format_number, **decides})


def made_once(name: str, make: Callable[[Path], None], what: str = "") -> Path:
    """Returns the path `cache_folder()/name`, and first calls `make(temporary path)` if nothing is there yet.

    One process makes the file; others wait for the lock and then use the file.  What a killed process left unfinished
    is made again.  `what`: what making it is, in words, for the log and for whoever watches.  Raises BadInput if the
    cache folder cannot be used or has no room.
    """
    from filelock import FileLock

    path = cache_folder() / name
    try:
        if path.exists() and _matches(path):
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        with working(what) if what else nullcontext(), FileLock(f"{path}.lock"):
            if not path.exists() or not _matches(path):
                started = time.monotonic()
                _make(path, make)
                if what:
                    log.info("%s (%.0f s, kept for later runs)", what, time.monotonic() - started)
    except OSError as problem:
        if path.parent.is_dir() and not isinstance(problem, PermissionError | NotADirectoryError | FileExistsError):
            raise  # of what is made, or of a full disk
        raise NoCache(f"the cache cannot be made in {cache_folder()} ({problem.strerror}: {problem.filename}); set "
                      "AFTEREDIT_CACHE to a folder that can be read and written") from None  # fmt: skip
    return path


def _make(path: Path, make: Callable[[Path], None]) -> None:
    """Makes the file or folder so that it is complete and on the disk, or absent."""
    for leftover in path.parent.glob(f"{path.name}.*.part"):  # left by a killed process: this one holds the lock
        _remove(leftover)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with refusing_full_disks(str(path), "make room, or set AFTEREDIT_CACHE to another folder"):
            make(temporary)
        as_new_files(temporary)
        for file in [temporary, *temporary.rglob("*")]:
            sync(file)
        write_atomically(_sum_of(path), _sha256(temporary).encode())
        if path.is_dir():  # a file gives way at once, a folder only to none
            _remove(path)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        _remove(temporary)


def _matches(path: Path) -> bool:
    """Says whether a file or folder matches its SHA-256."""
    checksum = _sum_of(path)
    if checksum.is_file() and checksum.read_text() == _sha256(path):
        return True
    log.warning("%s does not match its checksum (%s): it is made again", path, checksum.name)
    return False


def _sum_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _sha256(path: Path) -> str:
    """Returns the SHA-256 of a file, or of the names and checksums of the files in a folder."""
    if path.is_dir():
        return content_hash({str(file.relative_to(path)): _sha256(file) for file in path.rglob("*") if file.is_file()})
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
