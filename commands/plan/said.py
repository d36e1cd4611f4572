"""Prints a plan: tables of memory, seconds and disk, then what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from afteredit.commands.plan.plan import Planned, Seconds, planned, total
from afteredit.launch.experiment import Experiment, PlannedBy
from afteredit.record.terminal import bold

if TYPE_CHECKING:
    from afteredit.record.terminal import PlainConsole

GIB = 2**30


def plan(x: Experiment, console: PlainConsole) -> Path:
    """Prints what the experiment would cost; returns the folder of its runs, in which nothing is made.

    Raises BadInput where a row or a shape cannot be read.
    """
    print_plan(planned(x), x, console)
    return Path(x.settings.runs)


def print_plan(says: Planned, x: Experiment, console: PlainConsole) -> None:
    """Prints all of it."""
    where = "this machine" if x.plan.by is PlannedBy.machine else f"{x.plan.tflops:g} TFLOP/s and {x.plan.gib:g} GiB"
    console.print(bold("plan", f" of {x.names['method']} on {x.model.name}, {x.settings.n_edits} edits, on {where}; no "
                       "weights were loaded"))  # fmt: skip
    console.print(_memory(says), _seconds(says), _disk(says))
    for place, n_bytes in says.held.lacking().items():
        remedies = "; ".join(says.held.remedies)
        console.print(bold("does not fit", f": {place} lacks {n_bytes / GIB:.1f} GiB.  {remedies}", style="bold red"))
    for note in says.notes:
        console.print(f"- {note}", highlight=False)


def _memory(says: Planned) -> Table:
    table = Table(title="memory, GiB", title_justify="left")
    table.add_column("where")
    table.add_column("what")
    table.add_column("GiB", justify="right")
    for place, always in says.held.always.items():
        for name, n_bytes in always.items():
            table.add_row(place, name, _gib(n_bytes))
        for name, n_bytes in says.held.phases.get(place, {}).items():
            table.add_row(place, f"while {name}", _gib(n_bytes))
        room = says.held.room.get(place, float("inf"))
        there = f" of {room / GIB:.0f}" if room < float("inf") else ""
        table.add_row(place, "at most", f"{_gib(says.held.peak(place))}{there}", style="bold", end_section=True)
    return table


def _seconds(says: Planned) -> Table:
    table = Table(title="time", title_justify="left")
    table.add_column("what")
    for name in ("expected", "at least", "at most"):
        table.add_column(name, justify="right")
    n_later = max(0, len(says.checkpoints) - 2)
    lines = {"starting: imports, rows, weights": says.started, "preparing, once per model": says.once,
             "preparing, at every start": says.start, f"one update (of {says.n_updates})": says.update,
             "its immediate success": says.immediate}  # fmt: skip
    for name, seconds in lines.items():
        _add(table, name, seconds)
    table.add_section()
    _add(table, "checkpoint at 0 edits", total(says.unedited.values()))
    for name, seconds in says.later.items():
        _add(table, f"  a later one: {name}", seconds)
    _add(table, f"a later checkpoint (of {n_later})", total(says.later.values()))
    _add(table, "the last checkpoint", total(says.last.values()))
    table.add_section()
    _add(table, "the whole run, constants cached", says.whole, style="bold")
    _add(table, "the whole run, the first of its model", says.whole + says.once, style="bold")
    return table


def _disk(says: Planned) -> Table:
    table = Table(title="disk, MB", title_justify="left")
    table.add_column("what")
    table.add_column("MB", justify="right")
    for name, n_bytes in says.disk.items():
        table.add_row(name, f"{n_bytes / 1e6:,.1f}")
    return table


def _add(table: Table, name: str, seconds: Seconds, style: str | None = None) -> None:
    table.add_row(name, *map(_clock, (seconds.expected, seconds.low, seconds.high)), style=style)


def _gib(n_bytes: float) -> str:
    return f"{n_bytes / GIB:.2f}"


def _clock(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 600:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
