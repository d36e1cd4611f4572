"""The user's cache: constants that many runs share, named by what decides them, made by one process at a time.

Beside every file lies its SHA-256: a file that does not match it is named and made anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from afteredit.store.atomic_files import sync, write_atomically
from afteredit.store.errors import BadInput

log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """$AFTEREDIT_CACHE, else `afteredit` in $XDG_CACHE_HOME or ~/.cache."""
    chosen = os.environ.get("AFTEREDIT_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "afteredit"


def content_hash(decides: Any) -> str:
    """Sixteen hex digits of the SHA-256 of a JSON-able description."""
    text = json.dumps(decides, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """`cache_folder()/name`, made by `make(temporary path)` when it is not there yet.

    One process makes it, others wait for the lock and use it; what was half made by a killed process is made again.
    Raises BadInput where the cache is no folder that can be used, or has no room.
    """
    from filelock import FileLock

    path = cache_folder() / name
    try:
        if path.exists() and _matches(path):
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not path.exists() or not _matches(path):
                log.info("making %s (once; later runs find it there)", path)
                _make(path, make)
    except (FileExistsError, NotADirectoryError, PermissionError) as problem:
        raise BadInput(f"the cache cannot be made in {cache_folder()} ({problem.strerror}: {problem.filename}); set "
                       "AFTEREDIT_CACHE to a folder that can be read and written") from None  # fmt: skip
    return path


def _make(path: Path, make: Callable[[Path], None]) -> None:
    """Whole and on the disk, or not at all."""
    from safetensors import SafetensorError

    for left in path.parent.glob(f"{path.name}.*.part"):  # by a process that was killed: we hold the lock
        _remove(left)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        make(temporary)
        for file in [temporary, *temporary.rglob("*")]:
            sync(file)
        if temporary.is_file():
            write_atomically(_sum_of(path), _sha256(temporary).encode())
            os.replace(temporary, path)
        else:
            _remove(path)
            os.rename(temporary, path)
        sync(path.parent)
    except SafetensorError as problem:  # how safetensors says what is an OSError elsewhere
        raise BadInput(f"{path} cannot be written ({problem}); make room, or set AFTEREDIT_CACHE to another "
                       "folder") from None  # fmt: skip
    finally:
        _remove(temporary)


def _matches(path: Path) -> bool:
    """Is the file as it was made?  Folders are not read again: a model's weights are compared by every run."""
    if path.is_dir():
        return True
    kept = _sum_of(path)
    if kept.is_file() and kept.read_text() == _sha256(path):
        return True
    log.warning("%s does not match its checksum (%s): it is made anew", path, kept.name)
    return False


def _sum_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
