"""Turns the signals that stop a command into an exception, where it may stop without loss."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from afteredit.store.errors import Interrupted


class Interruption:
    """A context manager that turns the first SIGTERM or Ctrl-C into Interrupted, and the first user signal that has a
    handler: that of a scheduler which wants the machine back.

    By default the signal is remembered until `check` is called, so that a whole edit is written first.  With `at_once`
    Interrupted is raised where the signal comes.  A second signal acts as it did outside.  In a thread nothing is
    turned: signals are the main thread's.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)
    OF_SCHEDULERS = (signal.SIGUSR1, signal.SIGUSR2)

    def __init__(self, *, at_once: bool = False) -> None:
        self._at_once = at_once
        self._signal: int | None = None
        self._handlers_before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is not threading.main_thread():
            return self
        handled = [number for number in self.OF_SCHEDULERS if callable(signal.getsignal(number))]
        numbers = (*self.SIGNALS, *handled)
        self._handlers_before = {number: signal.signal(number, self._remember) for number in numbers}
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
