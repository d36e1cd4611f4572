"""What is under way: bars in a real terminal, lines in a file."""

from __future__ import annotations

import io
import os
import pty
import threading
import time
from contextlib import suppress
from functools import partial

import pytest

from afteredit.record.display import live_view
from afteredit.record.terminal import PlainConsole
from afteredit.store.progress.work import watch_by, working


def wait_for(condition) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never came")


def test_a_real_terminal_shows_nested_bars_while_they_are_under_way_and_keeps_lines_alone(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    leader, follower = pty.openpty()
    read = bytearray()

    def reader() -> None:
        with suppress(OSError):  # once the other end is closed
            while chunk := os.read(leader, 4096):
                read.extend(chunk)

    threading.Thread(target=reader, daemon=True).start()
    with os.fdopen(follower, "w", encoding="utf-8") as terminal:
        console = PlainConsole(file=terminal, width=90)
        assert console.is_interactive
        watch_by(partial(live_view.live_view, console))
        with working("edits", 20) as edits, working("measuring", 11) as parts, working("rows", 32):
            edits.done, parts.done, parts.part = 5, 3, "nli"
            wait_for(
                lambda: all(text in bytes(read) for text in (b"edits", b"5/20", b"  measuring: nli", b"3/11", b"0/32"))
            )
            console.log("a line")
            wait_for(lambda: b"a line" in read)
            assert b"left" in read
        wait_for(lambda: bytes(read).endswith(b"\x1b[2K") or b"\x1b[?25h" in read)  # erased; the cursor is back


@pytest.mark.parametrize("shared", [False, True])
def test_a_file_and_a_shared_terminal_get_a_line_now_and_then_and_no_bars(monkeypatch, shared):
    monkeypatch.setattr(live_view, "SILENCE", 0.05)
    console = PlainConsole(file=io.StringIO(), shared=shared, label="rome-tiny", force_terminal=shared, width=100,
                           color_system=None)  # fmt: skip
    watch_by(partial(live_view.live_view, console))
    with working("computing second moments"), working("rows", 120) as rows:
        rows.done = 32
        wait_for(lambda: console.file.getvalue().count("rows 32/120") > 1)
    n_threads = threading.active_count()
    written = console.file.getvalue()
    first = written.splitlines()[0]
    assert first[10:].startswith(
        " rome-tiny: … computing" if shared else " … computing second moments · rows 32/120, 0:00:00"
    )
    assert "━" not in written and "\x1b[?25l" not in written
    time.sleep(0.15)
    assert console.file.getvalue() == written and threading.active_count() == n_threads


def test_a_line_is_written_only_after_a_silence(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(live_view.time, "monotonic", lambda: now[0])
    console = PlainConsole(file=io.StringIO())
    ended = threading.Event()
    waits = iter([10.0, 28.0, 40.0, 56.5])  # what is looked at is what a run writes now and then

    def wait(_seconds: float) -> bool:
        now[0] = next(waits, 99.0)
        return now[0] == 99.0

    monkeypatch.setattr(ended, "wait", wait)
    with working("loading a model"):
        live_view._write_lines(console, ended)
    assert len(console.file.getvalue().splitlines()) == 2  # at 28 s, and 28.5 s after that line
    assert live_view.SILENCE + 1 <= 30
