"""Leases on work in a folder that several machines share: whoever holds one renews it, a dead holder's is taken over.

A lease on a place `p` is the file `p.<turn>`, which O_EXCL makes, so that one process alone gets it, on NFS too.  Who
takes over an expired one makes the file of the next turn; the highest turn holds.  A lease has expired when it was not
renewed for its seconds.  The clocks of machines may differ, so its age is told by the file system alone: by the
difference of its time of change to that of a new file beside it.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from afteredit.store.atomic_files import make_folder

SECONDS = 60.0  # without a renewal, after which a holder counts as dead
RENEWALS = 6  # of a lease within these seconds
POLL = 0.1  # seconds between two attempts to get a lease for a short while


class Lease:
    """A lease that this process holds.  A thread renews it until `release`."""

    def __init__(self, path: Path, seconds: float):
        self.path, self._seconds = path, seconds
        self._released = threading.Event()
        self._write()
        self._thread = threading.Thread(target=self._renew, daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Gives the lease back, and removes those that this one followed."""
        self._released.set()
        self._thread.join()
        for _, path in _turns(_place(self.path)):
            if path <= self.path:
                path.unlink(missing_ok=True)

    def _renew(self) -> None:
        while not self._released.wait(self._seconds / RENEWALS):
            with suppress(OSError):  # a shared folder may be away for a while
                if _turns(_place(self.path))[-1:] != [(_turn(self.path), self.path)]:
                    return  # taken over
                self._write()

    def _write(self) -> None:
        """Writes who holds the lease; that the file changes is what renews it."""
        says = {"host": socket.gethostname(), "pid": os.getpid(), "renewed": time.time(), "seconds": self._seconds}
        descriptor = os.open(self.path, os.O_WRONLY)  # never makes it again
        try:
            os.pwrite(descriptor, json.dumps(says).ljust(200).encode(), 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def claim(place: Path, seconds: float = SECONDS, *, take_over: bool = False) -> Lease | None:
    """Returns a lease on `place`, which is no file; None where another process holds one that has not expired.

    `take_over`: whether it has expired is not asked, since the caller knows that its holder is no more.
    """
    make_folder(place.parent)
    turns = _turns(place)
    if turns and not take_over and not _has_expired(turns[-1][1]):
        return None
    path = place.with_name(f"{place.name}.{turns[-1][0] + 1 if turns else 0:06d}")
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except FileExistsError:
        return None
    return Lease(path, seconds)


@contextmanager
def held(place: Path, seconds: float = SECONDS, check: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Waits for a lease on `place` and holds it inside.  `check` is called while it waits, and may raise."""
    while (lease := claim(place, seconds)) is None:
        check()
        time.sleep(POLL)
    try:
        yield
    finally:
        lease.release()


def holder(place: Path) -> str | None:
    """Returns who holds a lease on `place` now, in words; None where nobody does."""
    turns = _turns(place)
    if not turns or _has_expired(turns[-1][1]):
        return None
    return "process {pid} on {host}".format(**_says(turns[-1][1]))


def is_claimed(place: Path) -> bool:
    """Tells whether a lease on `place` was given and not given back, whether its holder is alive or not."""
    return bool(_turns(place))


def _has_expired(path: Path) -> bool:
    try:
        with open(path, "rb") as file:  # opened, since NFS then asks the server when the file was changed
            changed = os.fstat(file.fileno()).st_mtime
        with tempfile.TemporaryFile(dir=path.parent) as file:
            now = os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:  # released meanwhile
        return False
    return now - changed > _says(path)["seconds"]


def _says(path: Path) -> dict[str, Any]:
    """Returns what the file of a lease says; little where it is gone, or its holder died before it could write."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        says = json.loads(path.read_bytes())
        return {"host": says["host"], "pid": int(says["pid"]), "seconds": float(says["seconds"])}
    return {"host": "an unknown machine", "pid": 0, "seconds": SECONDS}


def _turns(place: Path) -> list[tuple[int, Path]]:
    """Returns the files of the leases on a place, in order."""
    return sorted((_turn(path), path) for path in place.parent.glob(f"{place.name}.*") if path.suffix[1:].isdecimal())


def _turn(path: Path) -> int:
    return int(path.suffix[1:])


def _place(path: Path) -> Path:
    return path.with_suffix("")
