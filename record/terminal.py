"""The terminal: a line for every edit and checkpoint, and a bar with the time left.

Text from outside (names, paths, facts) is never markup, and sends the terminal no commands.
"""

from __future__ import annotations

import io
import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import accumulate
from typing import Any

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from afteredit.edit.request import EditRequest
from afteredit.store.errors import without_secrets

CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")  # not tab and line feed


TIME = "[%X]"  # one format for the log and a run's own lines


class Display:
    """Shows the progress of `batches`, measured wherever it is `due`; a context manager shows the bar.

    The time left is estimated from the seconds of those that are done.
    """

    def __init__(self, console: Console, batches: Sequence[Sequence[EditRequest]], due: Callable[[int, int], bool]):
        self.console = console
        sizes = [len(batch) for batch in batches]
        starts = [0, *accumulate(sizes)]
        self._subjects = {start: batch[0].subject for start, batch in zip(starts, batches, strict=False)}
        ends = list(accumulate(sizes))
        n_checkpoints = 1 + sum(due(n, size) or n == ends[-1] for n, size in zip(ends, sizes, strict=True))
        self._left = {"edit": sum(sizes), "checkpoint": n_checkpoints}
        self._seconds: dict[str, list[float]] = {"edit": [], "checkpoint": []}
        self._bar = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(),
            TextColumn("{task.completed}/{task.total} edits"),
            TimeElapsedColumn(), TextColumn("{task.fields[left]}"), console=console, transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task("starting", total=sum(sizes), left="")

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def doing(self, text: str) -> None:
        """Shows what is being done, beside the bar."""
        self._bar.update(self._task, description=visible(text))

    def next_edit(self, n_edits: int, *, stored: bool) -> None:
        """Shows which edit follows after so many edits, and whether its update is `stored` already."""
        if n_edits in self._subjects:
            self.doing(f"{'applying again' if stored else 'editing'}: {self._subjects[n_edits]}")

    def edited(self, record: Mapping[str, Any], success: Mapping[str, float]) -> None:
        """Prints the line of a batch: a record of the journal, and the means of its immediate success."""
        n_new = len(record["requests"])
        self._count("edit", n_new, record["edit_s"] / max(n_new, 1))
        efficacy = {way: f"edit/immediate/{way}/efficacy" for way in ("prob", "forced", "generated")}
        shown = ", ".join(f"{way} {success[key]:.0f}" for way, key in efficacy.items() if key in success)
        names = ", ".join(f"{r['subject']} → {r['target_new']}" for r in record["requests"][:3])
        self._bar.update(self._task, completed=record["n_edits"])
        self.console.log(f"edit {record['n_edits']}: {names}  {shown}  {record['edit_s']:.1f} s", highlight=False)

    def measured(self, row: Mapping[str, Any]) -> None:
        """Prints the line of a checkpoint: a row of the results."""
        self._count("checkpoint", 1, row["time/eval_s"])
        scores = [f"{k.removeprefix('ability/')} {v:.2f}" for k, v in row.items() if _is_headline(k)]
        perplexity = row.get("drift/perplexity", float("nan"))
        measured = "; ".join(filter(None, [", ".join(scores), f"perplexity {perplexity:.1f}"]))
        rest = f": {measured}  {row['time/eval_s']:.0f} s"
        self.console.log(bold(f"after {row['n_edits']} edit{'s' * (row['n_edits'] != 1)}", rest))

    def left_pending(self, n_edits: int) -> None:
        """Says that a checkpoint is left to other processes; this one measures none."""
        self._left["checkpoint"] = 0
        self.console.log(f"after {n_edits} edits: left to be measured", highlight=False)

    def _count(self, kind: str, n: int, seconds: float) -> None:
        self._left[kind] = max(0, self._left[kind] - n)
        self._seconds[kind].append(seconds)
        known = {k: s for k, s in self._seconds.items() if s}
        left = sum(self._left[k] * sum(s) / len(s) for k, s in known.items())
        if all(known.get(k) or not self._left[k] for k in self._left):
            self._bar.update(self._task, left=f"{timedelta(seconds=round(left))} left")


def _is_headline(key: str) -> bool:
    return key.startswith("ability/") and key.count("/") == 1


def visible(text: str) -> str:
    """Returns the text with escape codes, other control characters and changes of direction spelled out."""
    return CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


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
    what others print while a bar stands, and Jupyter print what rich shows, without an end."""

    def __init__(self, **options: Any):
        if "ipykernel" in sys.modules:  # Jupyter says that its output is a terminal
            options = {"force_terminal": False, **options}
        super().__init__(
            markup=False, emoji=False, log_path=False, log_time_format=TIME, force_jupyter=False, **options
        )

    def print(self, *texts: Any, **options: Any) -> None:
        with _named(self.file):
            super().print(*texts, **options)

    def log(self, *texts: Any, **options: Any) -> None:
        with _named(self.file):
            super().log(*texts, **{"_stack_offset": 2, **options})

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text), **options)


class _VisibleFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def log_handler(console: Console) -> logging.Handler:
    """Returns a handler that prints the log to the console."""
    handler = RichHandler(console=console, show_path=False, show_level=False, log_time_format=TIME)
    handler.setFormatter(_VisibleFormatter("%(message)s"))
    return handler


def print_error(problem: BaseException | str) -> None:
    """Prints one line to standard error, without the users and passwords of addresses."""
    line = bold("error: ", style="bold red") + Text(visible(without_secrets(str(problem))))
    PlainConsole(stderr=True).print(line, soft_wrap=True)


def print_in_any_encoding() -> None:
    """Lets a terminal whose encoding lacks a character show its number instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
