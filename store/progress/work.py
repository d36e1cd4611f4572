"""Says what is being done and how far it is, to whoever watches.  A terminal shows it; no number depends on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass

Watch = Callable[[], AbstractContextManager[object]]

_under_way: list[Work] = []  # the outermost first
_watch: ContextVar[Watch] = ContextVar("watch", default=nullcontext)


@dataclass(eq=False)
class Work:
    """Holds one piece of work, of which `done` of `total` parts are done; an unknown total is None.

    `part` names the part under way.  `spared`: the seconds that it would have taken besides, had nothing of it been in
    the cache.  `left`: says how long it will take, where its maker knows better than by the parts that are done.
    """

    what: str
    total: int | None = None
    done: int = 0
    part: str = ""
    spared: float = 0.0
    left: Callable[[], str] | None = None

    def __post_init__(self) -> None:
        self.started, self._done_before = time.monotonic(), self.done

    def begin(self, part: str) -> None:
        """Begins a named part; the one before it, if any, is done."""
        self.done += bool(self.part)
        self.part = part

    def seconds_left(self, inside: Sequence[Work]) -> float | None:
        """Returns the seconds left by what is done of this work and of the works `inside` it; None while that is
        nothing."""
        done = share_done([self, *inside]) - (self._done_before / self.total if self.total else 0.0)
        if done <= 0:
            return None
        return (time.monotonic() - self.started) * max(0.0, 1 - share_done([self, *inside])) / done


@contextmanager
def working(what: str, total: int | None = None, done: int = 0) -> Iterator[Work]:
    """Yields the work that is under way inside the block; inside another block it is a part of that one's work."""
    work = Work(what, total, done)
    with nullcontext() if _under_way else _watch.get()():
        _under_way.append(work)
        try:
            yield work
        finally:
            _under_way.remove(work)


def under_way() -> list[Work]:
    """Returns what is being done now: the outermost work, then what it is made of."""
    return list(_under_way)


def watch_by(watch: Watch) -> None:
    """Lets the context manager that `watch()` gives stand around every outermost work from here on."""
    _watch.set(watch)


def spare(seconds: float) -> None:
    """Says that what is under way would have taken so many seconds more, had it not been in the cache."""
    for work in _under_way:
        work.spared += seconds


def share_done(works: Sequence[Work]) -> float:
    """Returns the share of the first work that is done, in which the next is a part; of one whose total is unknown, the
    share of what is inside it."""
    if not works:
        return 0.0
    first, *inside = works
    if not first.total:
        return share_done(inside)
    return min(1.0, (first.done + share_done(inside)) / first.total)
