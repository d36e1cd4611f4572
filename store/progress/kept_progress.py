"""What a long preparation has finished so far is kept in the user's cache, so that a stopped one goes on from there.

A preparation writes its progress piece by piece, each time the whole of it in one file beside the file that it makes.
The file's own SHA-256 is in its name: a damaged one is not used.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from afteredit.store.atomic_files import make_folder, sync, write_json
from afteredit.store.user_cache import cache_folder

log = logging.getLogger(__name__)

SECONDS = 60.0  # most work that is lost, but for the piece under way
SHARE = 10  # writing takes at most one part of so many


class KeptProgress:
    """The progress towards the cached file `name`, which names all that decides it.

    Only the process that makes this file may use it: `made_once` holds a lock then.
    """

    def __init__(self, name: str, seconds: float | None = None):
        self._path, self._seconds = cache_folder() / name, SECONDS if seconds is None else seconds
        self._kept_at, self._took = time.monotonic(), 0.0

    def found(self) -> Path | None:
        """Returns the file that was kept last and is whole, or None.  Logs that the preparation goes on from it."""
        for path in sorted(self._files(), key=lambda path: path.stat().st_mtime, reverse=True):
            if path.name == self._name_of(path):
                log.info("going on from what an earlier start finished (%s)", path)
                return path
            log.warning("%s is damaged and not used", path)
        return None

    def is_due(self) -> bool:
        """Tells whether enough was done since progress was kept last."""
        return time.monotonic() - self._kept_at >= max(self._seconds, SHARE * self._took)

    def keep(self, write: Callable[[Path], None]) -> None:
        """Keeps what `write(path)` writes in place of what was kept before."""
        started, before = time.monotonic(), self._files()
        temporary = self._path.with_name(f"{self._path.name}.progress.part")
        write(temporary)
        path = temporary.with_name(self._name_of(temporary))
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
        for old in before:
            if old != path:
                old.unlink(missing_ok=True)
        self._kept_at = time.monotonic()
        self._took = self._kept_at - started

    def clear(self) -> None:
        """Removes what was kept: the file is made."""
        for path in self._files():
            path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return list(self._path.parent.glob(f"{self._path.name}.*.progress"))

    def _name_of(self, path: Path) -> str:
        with open(path, "rb") as file:
            return f"{self._path.name}.{hashlib.file_digest(file, 'sha256').hexdigest()[:16]}.progress"


class KeptResults:
    """The results of many computations by their keys, in one file of the cache that grows: a context manager that holds
    its lock.  A result is on the disk as soon as it is there; keys name all that decides it."""

    def __init__(self, name: str):
        self._progress, self._name = KeptProgress(name, seconds=0.0), name
        self._results: dict[str, Any] = {}

    def __enter__(self) -> KeptResults:
        from filelock import FileLock, Timeout

        path = cache_folder() / self._name
        make_folder(path.parent)
        self._lock = FileLock(f"{path}.lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            log.info("waiting for another process that is at the same work (%s)", path)
            self._lock.acquire()
        found = self._progress.found()
        self._results = json.loads(found.read_text("utf-8")) if found else {}
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def __contains__(self, key: str) -> bool:
        return key in self._results

    def of(self, key: str, compute: Callable[[], Any]) -> Any:
        """Returns the result of `key`, plain data; computes and keeps it where it is not there."""
        if key not in self._results:
            self._results[key] = compute()
            self._progress.keep(lambda path: write_json(path, self._results))
        return self._results[key]
