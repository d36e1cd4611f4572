"""SIGTERM and Ctrl-C: the run stops at the next whole edit, or at once where nothing is lost by it: while measuring,
which is done again later, and before and after the edits."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any


class Interrupted(BaseException):
    """The run was asked to stop; everything before is on the disk.  No Exception, as KeyboardInterrupt is none: it may
    be raised inside a library that catches all it can."""

    def __init__(self, signal_number: int):
        super().__init__(signal.Signals(signal_number).name)
        self.exit_code = 128 + signal_number


class OneOfManyFailed(Exception):
    """Of several runs of one command; why was said when it happened."""


class Interruption:
    """A context manager: inside, the first signal is remembered for `check`, or with `at_once` raises Interrupted where
    it comes; a second one acts as it did outside."""

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self, *, at_once: bool = False) -> None:
        self._at_once = at_once
        self._asked: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        self._before = {number: signal.signal(number, self._remember) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        self._asked = number
        signal.signal(number, self._before[number])
        if self._at_once:
            self.check()

    def check(self) -> None:
        """Raises Interrupted where a signal has come."""
        if self._asked is not None:
            raise Interrupted(self._asked)
