"""The console: what comes from outside is shown as it is, and every line of the log has its time and its run."""

from __future__ import annotations

import errno
import io
import logging
import re

import pytest
from rich.console import Console
from rich.table import Table

from afteredit.launch.endings import in_words
from afteredit.record.display.live_view import bars
from afteredit.record.terminal import PlainConsole, bold, log_handler
from afteredit.store.progress.work import under_way, working


def test_nothing_from_outside_is_markup_or_a_command_to_the_terminal():
    console = PlainConsole(file=io.StringIO(), width=200)
    hostile = "a[/b]c[bold]d :smile: \x1b[31mred\x1b]0;title\x07 \x9b2J \u202eback"
    console.print(hostile)
    console.log(bold(hostile, hostile))
    table = Table(hostile, title=hostile)
    table.add_row(hostile)
    console.print(table)
    log = logging.getLogger("a test of hostile texts")
    log.propagate, log.handlers = False, [log_handler(console)]
    log.warning("%s", hostile)
    with working(hostile):
        console.print(bars(under_way()))
    written = console.file.getvalue()
    plain = r"a[/b]c[bold]d :smile: \x1b[31mred\x1b]0;title\x07 \x9b2J \u202eback"
    assert written.count(plain) == 8 and not set(written) & set("\x1b\x07\x9b\u202e")


def test_in_a_file_a_line_of_the_log_is_one_line_with_time_and_run():
    console = PlainConsole(file=io.StringIO(), shared=True, label="rome-tiny")
    console.log("far " * 60 + "away\nand near")
    console.label = "rome-tiny-01234567"
    log_handler(console).emit(logging.makeLogRecord({"msg": "a warning", "levelno": logging.WARNING}))
    first, second, third = console.file.getvalue().splitlines()
    assert re.fullmatch(r"\[\d\d:\d\d:\d\d\] rome-tiny: (far ){60}away", first)
    assert second[10:] == " rome-tiny: and near" and third[10:] == " rome-tiny-01234567: a warning"


def test_in_a_terminal_a_long_line_goes_on_beside_the_time():
    console = PlainConsole(file=io.StringIO(), width=40, force_terminal=True, color_system=None)
    console.log("word " * 10)
    first, second = console.file.getvalue().splitlines()
    assert first[:11].strip().startswith("[") and second.startswith(" " * 11 + "word")


def test_where_nobody_reads_the_output_any_more_the_run_ends_in_a_line(monkeypatch):
    """As with `python run.py … | head`.  rich would end the process without a word."""

    class Closed(io.StringIO):
        def flush(self):
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    def ends(self):
        raise SystemExit(1)

    monkeypatch.setattr(Console, "on_broken_pipe", ends)
    console = PlainConsole(file=Closed())
    log = logging.getLogger("a test of closed pipes")
    log.propagate, log.handlers = False, [log_handler(console)]
    for say in (console.print, console.log, log.warning):
        with pytest.raises(BrokenPipeError) as problem:
            say("text")
        assert "keep what reads it open" in in_words(problem.value)
