"""How a command ends early: the signals that stop it, and the exit code and line of one that cannot go on."""

from __future__ import annotations

import errno
import signal
from types import FrameType
from typing import Any

from afteredit.store.errors import Interrupted

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_RIGHT = (errno.EROFS, errno.EACCES, errno.EPERM)
REMEDIES = {**dict.fromkeys(NO_ROOM, "make room"), **dict.fromkeys(NO_RIGHT, "make it readable and writable"),
            errno.EPIPE: "keep what reads it open"}  # fmt: skip


class OneOfManyFailed(Exception):
    """One of several runs of a command failed; the reason was printed when it happened."""


class Interruption:
    """A context manager that turns the first SIGTERM or Ctrl-C into Interrupted.

    By default the signal is remembered until `check` is called, so that a whole edit is written first.  With `at_once`
    Interrupted is raised where the signal comes.  A second signal acts as it did outside.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self, *, at_once: bool = False) -> None:
        self._at_once = at_once
        self._signal: int | None = None
        self._handlers_before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        self._handlers_before = {number: signal.signal(number, self._remember) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers_before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        self._signal = number
        signal.signal(number, self._handlers_before[number])
        if self._at_once:
            self.check()

    def check(self) -> None:
        """Raises Interrupted where a signal has come."""
        if self._signal is not None:
            raise Interrupted(self._signal)


def exit_code(problem: BaseException) -> int:
    """Returns the exit code of a command that ends with `problem`, and prints what to do about it.

    Raises `problem` again where it is an OSError without a remedy.
    """
    from afteredit.record.terminal import print_error

    if isinstance(problem, Interrupted):
        return problem.exit_code
    if isinstance(problem, KeyboardInterrupt):
        print_error("stopped")
        return 128 + signal.SIGINT
    if isinstance(problem, OSError):
        if problem.errno not in REMEDIES:
            raise problem
        fault = f"{problem.filename or 'a file'} cannot be {'used' if problem.errno in NO_RIGHT else 'written'}"
        print_error(f"{problem.strerror}: {fault}; every edit and checkpoint before this is kept: "
                    f"{REMEDIES[problem.errno]}, and the same command goes on from there")  # fmt: skip
        return 2
    print_error(problem)
    return 2
