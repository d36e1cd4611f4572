"""Who is at work on a run directory: one process that edits, or any number that measure what it leaves to them.

The editing process holds the lock `.lock`.  The others hold leases in `leases/`: on a checkpoint each, and on the
results files for the moment that it takes to read or write them.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from filelock import FileLock, Timeout

from afteredit.store.errors import BadInput
from afteredit.store.locks.lease import SECONDS, Lease, claim, held, holder

BRIEFLY = 0.3  # seconds: `is_held` holds the lock for an instant
STARTING = 5.0  # seconds from a process's lock to its lease, while it reads a long journal


def hold(folder: Path) -> FileLock:
    """Returns the lock of the process that edits the run.  Raises BadInput where another has it."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=BRIEFLY)
    except Timeout:
        raise BadInput(f"{folder} is in use by another process; wait for it, or change seed or config") from None
    return lock


def leave_to_others(folder: Path) -> Lease:
    """Returns the lease of an editing process that leaves the checkpoints to others."""
    lease = claim(folder / "leases" / "editing", take_over=True)  # the lock says that its holder is no more
    if lease is None:
        raise BadInput(f"{folder} is in use by another process; wait for it, or change seed or config")
    return lease


def is_edited(folder: Path) -> bool:
    """Tells whether a process edits the run now, and leaves the checkpoints to others."""
    return holder(folder / "leases" / "editing") is not None


def claim_checkpoint(folder: Path, results: str, n_edits: int, seconds: float) -> Lease | None:
    """Returns a lease on the checkpoint after so many edits under an evaluation; None where another process has it."""
    return claim(folder / "leases" / f"{results}-{n_edits:06d}", seconds)


def results_held(folder: Path, seconds: float = SECONDS, check: Callable[[], None] = lambda: None,
                 ) -> AbstractContextManager[None]:  # fmt: skip
    """Holds the results files, and environment.json, against the other processes that measure."""
    return held(folder / "leases" / "results", seconds, check)


def refuse_measuring(folder: Path) -> None:
    """Raises BadInput where other processes measure the run: who measures it alone would write over their rows."""
    for path in sorted(folder.glob("leases/*-*.*")):
        measuring = holder(path.with_suffix(""))
        if measuring:
            raise BadInput(f"{folder} is being measured by replay.pending=true ({measuring}); wait for it.  Where it "
                           "was killed, it counts as dead within replay.lease_s seconds")  # fmt: skip


def refuse_lone_editing(folder: Path) -> None:
    """Raises BadInput where a process edits the run and measures it itself."""
    until = time.monotonic() + STARTING
    while is_held(folder) and not is_edited(folder):
        if time.monotonic() > until:
            raise BadInput(f"{folder} is in use by a process that measures it itself; wait for it.  A run that is "
                           "begun with measure=later leaves its checkpoints to replay.pending")  # fmt: skip
        time.sleep(BRIEFLY)


def is_held(folder: Path) -> bool:
    """Tells whether a process holds the run to edit it, or to measure it alone; writes nothing."""
    path = folder / ".lock"
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:  # where a file system knows no such lock, that the file is there holds the run (filelock)
            return True
    return False
