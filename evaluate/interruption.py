"""SIGTERM and Ctrl-C: the run stops at the next whole edit, or at once while measuring, which is done again later."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any


class Interrupted(Exception):
    """The run was asked to stop; everything before is on the disk."""

    def __init__(self, signal_number: int):
        super().__init__(signal.Signals(signal_number).name)
        self.exit_code = 128 + signal_number


class OneOfManyFailed(Exception):
    """Of several runs of one command; why was said when it happened."""


class Interruption:
    """A context manager: inside, the first signal is remembered for `check`, a second one acts as it always does."""

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
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

    def check(self) -> None:
        """Raises Interrupted where a signal has come."""
        if self._asked is not None:
            raise Interrupted(self._asked)
