"""A run in the terminal: lines that fit, columns that are explained once, and the time left."""

from __future__ import annotations

import io
import re

import pytest

from afteredit.record.display import run_display
from afteredit.record.display.live_view import bars, in_words
from afteredit.record.display.run_display import Display
from afteredit.record.terminal import PlainConsole
from afteredit.store.progress import work
from afteredit.store.progress.work import spare, under_way, working

ABILITIES = ("closed_qa", "dialogue", "ner", "nli", "open_qa", "reasoning", "sentiment", "summarization")


@pytest.fixture
def console() -> PlainConsole:
    return PlainConsole(file=io.StringIO(), width=100)


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """The seconds that have passed, as the display and the works see them."""
    now = [0.0]
    for module in (run_display, work):
        monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def edit(n_edits: int, seconds: float, n_new: int = 1) -> dict:
    requests = [{"subject": f"Town {i}", "target_new": "[red]Rome[/red]"} for i in range(n_new)]
    return {"n_edits": n_edits, "edit_s": seconds, "requests": requests}


def success(*values: float) -> dict:
    return {f"edit/immediate/{way}/efficacy": value for way, value in zip(run_display.WAYS, values, strict=True)}


def batches(fact, *sizes: int) -> list[list]:
    return [[fact] * size for size in sizes]


def row(n_edits: int, seconds: float, **more: float) -> dict:
    return {"n_edits": n_edits, "time/eval_s": seconds, "ability/retained": 0.5, "drift/perplexity": 20.25,
            **{f"ability/{name}": 0.75 for name in ABILITIES}, "ability/nli/gold_nll": 1.5, **more}  # fmt: skip


def left() -> str:
    """The time left as it would be shown now."""
    return under_way()[0].left()


@pytest.mark.parametrize("width", [80, 100])
def test_every_line_fits_the_terminal_and_columns_are_explained_once(fact, width):
    console = PlainConsole(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    with Display(console, batches(fact, *[1] * 99, 401), due=lambda n, _new: True) as display:
        display.measured(row(0, 30.0))
        display.edited(edit(99, 4.0), success(1, 1, 0), 5.0)
        display.measured(row(99, 33.0, **{"drift/perplexity": 123456789.0}))
        display.edited(edit(500, 400.0, n_new=401), success(1, 0.875, 0.5), 400.0)
    lines = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line).rstrip() for line in console.file.getvalue().splitlines()]
    assert all(len(line) <= width for line in lines)
    said = " ".join(" ".join(line[11:] for line in lines).split())
    assert said.count("after so many edits") == said.count("of each edit") == 1
    assert all(name in said for name in ABILITIES)
    (last,) = [line for line in lines if "after  99" in line]
    cut = " …" if width == 80 else ""
    assert last.split()[1:5] == ["after", "99", "0.50", "1.2e+08"] and f"{cut}    33" in last
    (one,) = [line for line in lines if "edit  99" in line]
    assert "Town 0 → [red]Rome[/red]" in one and one.split()[-4:] == ["1", "1", "0", "4.0"]
    (many,) = [line for line in lines if "edit 500" in line]
    assert many.split()[-4:] == ["1", "0.88", "0.5", "400.0"]


@pytest.mark.parametrize("width", [1, 10, 25])
def test_a_terminal_too_narrow_for_the_time_still_gets_every_line(fact, width):
    console = PlainConsole(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    with Display(console, batches(fact, 1, 2), due=lambda _n, _new: True) as display:
        display.measured(row(0, 30.0))
        display.edited(edit(1, 4.0), success(1, 1, 0), 5.0)
    assert width == 1 or len(console.file.getvalue().split()) > 4  # of one column rich makes nothing


def test_what_was_not_measured_is_a_dash(console, fact):
    with Display(console, batches(fact, 1), due=lambda _n, _new: True) as display:
        display.measured({"n_edits": 0, "time/eval_s": 3.0, "drift/perplexity": 20.25})  # task=none
        display.edited(edit(1, 4.0), {}, 4.0)
    lines = console.file.getvalue().splitlines()
    assert all(len(line) <= console.width for line in lines)
    (checkpoint,) = [line for line in lines if "after 0" in line]
    assert checkpoint.split()[1:] == ["after", "0", "-", "20.2", "-", "3"]
    assert lines[-1].split()[-4:] == ["-", "-", "-", "4.0"]


def test_the_time_left_is_known_while_the_first_checkpoint_is_measured(console, fact, clock):
    """Ten edits, measured at 0, 5 and 10: each of these has four parts of 20 s."""
    with Display(console, batches(fact, *[1] * 10), due=lambda n, _new: n % 5 == 0) as display:
        with working("measuring", 4) as parts:
            assert left() == ""
            clock[0], parts.done = 20.0, 1
            assert left() == "about 0:03:40 of measuring left"  # 3 x 80 s - 20 s; no edit was timed yet
            with working("rows", 8) as rows:
                clock[0], rows.done = 30.0, 4
                assert left() == "about 0:03:30 of measuring left"
        clock[0] = 80.0
        display.measured(row(0, 80.0))
        display.next_edit(0, stored=False)
        assert under_way()[0].part == "Joe DiMaggio"
        clock[0] = 85.0
        display.edited(edit(1, 4.0), success(1, 1, 1), 5.0)
        assert left() == "about 0:03:25 left"  # 9 x 5 s and 2 x 80 s
        clock[0] = 88.0
        assert left() == "about 0:03:22 left"
        assert "edits 1/10: Joe DiMaggio, 0:01:28 so far, about 0:03:22 left" in in_words(under_way())


def test_what_the_cache_spared_the_first_checkpoint_counts_for_the_others(console, fact, clock):
    with Display(console, batches(fact, 5, 5), due=lambda n, _new: n % 5 == 0) as display:
        with working("measuring", 4) as parts:
            clock[0], parts.done = 1.0, 2
            spare(39.0)
            assert left() == "about 0:03:20 of measuring left"  # 3 x 80 s, less 40
        display.measured(row(0, 2.0))
        display.edited(edit(5, 50.0, n_new=5), {}, 50.0)
        assert left() == "about 0:02:12 left"  # 50 s for five edits, 2 x 41 s
        display.measured(row(5, 100.0))
        assert left() == "about 0:02:30 left"  # of its own seconds


def test_a_checkpoint_that_takes_longer_than_those_before_it_is_judged_by_what_is_done_of_it(console, fact, clock):
    with Display(console, batches(fact, 5), due=lambda n, _new: n % 5 == 0) as display:
        display.measured(row(0, 80.0))
        display.edited(edit(5, 50.0, n_new=5), {}, 50.0)
        display.measuring()
        with working("measuring", 4) as parts:
            clock[0], parts.done = 60.0, 1
            assert left() == "about 0:00:20 left"
            clock[0] = 120.0
            assert left() == "about 0:06:00 left"  # a quarter took 120 s
            clock[0], parts.done = 160.0, 2
            assert left() == "about 0:02:40 left"


def test_a_stored_update_is_said_to_be_applied_again_and_days_are_said(console, fact, clock):
    with Display(console, batches(fact, *[1] * 101), due=lambda n, _new: n % 200 == 0) as display:
        display.next_edit(0, stored=True)
        assert under_way()[0].part == "again Joe DiMaggio"
        display.measured(row(0, 1.0))
        display.edited(edit(1, 3600.0), {}, 3600.0)
        assert left() == "about 4 days, 4:00:01 left"


def test_bars_are_nested_with_the_time_left_below_them_on_80_columns(fact, clock):
    console = PlainConsole(file=io.StringIO(), width=80)
    with Display(console, batches(fact, 1, 1), due=lambda _n, _new: True), working("measuring", 11) as parts:
        for part in ("editing success", "fluency", "drift"):
            parts.begin(part)
        clock[0] = 22.0
        with working("rows", 32, 8):
            console.print(bars(under_way()))
    # 22 s for (2 + 8/32) / 11 of one of three checkpoints
    edits, measuring, rows, left = (line.rstrip() for line in console.file.getvalue().splitlines())
    assert edits.endswith("0/2  0:00:22") and left == "about 0:05:01 of measuring left"
    assert measuring.startswith("  measuring: drift") and " 2/11 " in measuring
    assert rows.startswith("    rows") and " 8/32 " in rows


def test_the_first_collapse_is_said_as_it_is_measured(console, fact):
    with Display(console, batches(fact, 1, 1), due=lambda _n, _new: True) as display:
        display.measured(row(0, 3.0))
        display.measured(row(1, 3.0) | {"collapse": "perplexity is NaN"})
        display.measured(row(2, 3.0) | {"collapse": "perplexity is NaN"})
    lines = [line[11:] for line in console.file.getvalue().splitlines()]
    assert [line.split()[0] for line in lines[-4:]] == ["after", "after", "collapsed:", "after"]
    assert lines[-2] == "collapsed: perplexity is NaN"
