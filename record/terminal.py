"""The terminal: a console that takes every text as it is, puts the time before what it logs, and says which run speaks.

Text from outside (names, paths, facts) is never markup, and sends the terminal no commands.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from afteredit.store.errors import without_secrets

CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")  # not tab and line feed

FILE_WIDTH = 100  # columns of what is written to a file
NARROWEST = 20  # columns that a line of the log is given in any terminal


def visible(text: str) -> str:
    """Returns the text with escape codes, other control characters and changes of direction spelled out."""
    return CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


def so_many_edits(n: int) -> str:
    """Returns the number with its noun: 1 edit, 2 edits."""
    return f"{n} edit{'s' * (n != 1)}"


def bold(start: str, rest: str = "", style: str = "bold") -> Text:
    """Returns `start` in bold and then `rest`, both as plain text."""
    return Text.assemble((visible(start), style), visible(rest))


@contextmanager
def _named(file: Any) -> Iterator[None]:
    """Adds to an error of writing where it was written to, since it says no name."""
    try:
        yield
    except OSError as problem:
        problem.filename = problem.filename or f"the output ({getattr(file, 'name', file)})"
        raise


class PlainConsole(Console):
    """A console that takes every text as it is, and gives a notebook plain text without a bar: there rich would show
    what others print while a bar stands, and Jupyter print what rich shows, without an end.

    `label`: the run's name, put before each line of the log where several runs share a terminal (`shared`).
    """

    def __init__(self, *, shared: bool = False, label: str = "", **options: Any):
        if "ipykernel" in sys.modules:  # Jupyter says that its output is a terminal
            options = {"force_terminal": False, **options}
        super().__init__(markup=False, emoji=False, force_jupyter=False, **options)
        self.shared, self.label = shared, label
        self.printed_at = time.monotonic()
        if not self.is_terminal and "width" not in options and "COLUMNS" not in os.environ:
            self.width = FILE_WIDTH

    @property
    def log_width(self) -> int:
        """Returns the columns that a line of the log has after the time and the label; in a terminal too narrow for
        both, some all the same."""
        return max(self.width - len(self._start()) - 1, NARROWEST)

    def print(self, *texts: Any, **options: Any) -> None:
        with _named(self.file):
            super().print(*texts, **options)
        self.printed_at = time.monotonic()

    def log(self, *texts: Any, **_options: Any) -> None:
        """Prints a text after the time: in a terminal wrapped beside it, in a file as long as it is."""
        line = Text(" ").join(text if isinstance(text, Text) else Text(visible(str(text))) for text in texts)
        start = Text(self._start(), style="log.time")
        if self.is_terminal and not self.soft_wrap:
            grid = Table.grid(padding=(0, 1))
            grid.add_row(start, line)
            self.print(grid)
        else:
            for part in line.split():
                self.print(Text.assemble(start, " ", part), soft_wrap=True)

    def _start(self) -> str:
        return f"[{datetime.now():%H:%M:%S}]" + f" {visible(self.label)}:" * bool(self.shared and self.label)

    def on_broken_pipe(self) -> None:
        """Raises BrokenPipeError, where rich would end the process without a word: nobody reads the output any more."""
        with suppress(SystemExit):
            super().on_broken_pipe()
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text), **options)


class _ToConsole(logging.Handler):
    """Logs to a console, warnings in yellow."""

    def __init__(self, console: PlainConsole):
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        try:
            style = "yellow" if record.levelno >= logging.WARNING else ""
            self._console.log(Text(visible(self.format(record)), style=style))
        except BrokenPipeError:  # the run ends, as where it prints itself
            raise
        except Exception:  # noqa: BLE001  as every handler: what cannot be logged ends nothing
            self.handleError(record)


def log_handler(console: PlainConsole) -> logging.Handler:
    """Returns a handler that prints the log to the console."""
    return _ToConsole(console)


def print_error(problem: BaseException | str) -> None:
    """Prints one line to standard error, without the users and passwords of addresses."""
    line = bold("error: ", style="bold red") + Text(visible(without_secrets(str(problem))))
    PlainConsole(stderr=True).print(line, soft_wrap=True)


def print_in_any_encoding() -> None:
    """Lets a terminal whose encoding lacks a character show its number instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
