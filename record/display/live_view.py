"""Shows what is under way: at the foot of a terminal as bars, elsewhere as a line of the log at least every 30 s."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from threading import Event, Thread

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from afteredit.record.terminal import PlainConsole, visible
from afteredit.store.progress.work import Work, under_way

SILENCE = 28.0  # seconds without a line after which one is written; it is looked for every second
BAR = 24  # columns


@contextmanager
def live_view(console: PlainConsole) -> Iterator[None]:
    """Shows what is under way inside the block.  Several runs that share a terminal write lines: their bars would stand
    over each other."""
    if console.is_interactive and not console.shared:
        with Live(get_renderable=lambda: bars(under_way()), console=console, transient=True,
                  redirect_stderr=sys.stderr.isatty()):  # fmt: skip
            yield
        return
    ended = Event()
    thread = Thread(target=_write_lines, args=(console, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _write_lines(console: PlainConsole, ended: Event) -> None:
    """Writes a line whenever nothing was written for a while."""
    while not ended.wait(min(1.0, SILENCE)):
        works = under_way()
        if works and time.monotonic() - console.printed_at >= SILENCE:
            try:
                console.log(in_words(works))
            except OSError:  # whoever prints next is told
                return


def bars(works: Sequence[Work]) -> Group:
    """Returns a row for each work, with what is done of it and its time so far, and a line with the time left."""
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True, overflow="ellipsis")
    for _ in range(3):
        table.add_column(no_wrap=True)
    for depth, work in enumerate(works):
        bar = ProgressBar(total=work.total, completed=work.done, width=BAR, pulse=work.total is None)
        text = f"{'  ' * depth}{work.what}{': ' * bool(work.part)}{work.part}"
        table.add_row(Text(visible(text)), bar, _counted(work), spell(time.monotonic() - work.started))
    left = _left(works) if works else ""
    return Group(table, *([Text(left, style="dim")] if left else []))


def in_words(works: Sequence[Work]) -> str:
    """Returns the same in one line."""
    left = _left(works)
    parts = [f"{work.what} {_counted(work)}".strip() + f": {work.part}" * bool(work.part) for work in works]
    return f"… {' · '.join(parts)}, {spell(time.monotonic() - works[0].started)} so far{', ' * bool(left)}{left}"


def _counted(work: Work) -> str:
    return "" if work.total is None else f"{work.done}/{work.total}"


def _left(works: Sequence[Work]) -> str:
    """Returns the time left, as the outermost work says it or by what is done of it."""
    first, *inside = works
    if first.left is not None:
        return first.left()
    seconds = first.seconds_left(inside)
    return "" if seconds is None else f"about {spell(seconds)} left"


def spell(seconds: float) -> str:
    """Returns a time in hours, minutes and seconds: 0:01:05."""
    return str(timedelta(seconds=round(seconds)))
