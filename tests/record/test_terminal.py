"""The live view: a line per edit and checkpoint, and a bar with the time left."""

from __future__ import annotations

import io
import logging

import pytest
from rich.table import Table

from afteredit.record.terminal import Display, PlainConsole, bold, log_handler


@pytest.fixture
def console() -> PlainConsole:
    return PlainConsole(file=io.StringIO(), width=120, force_terminal=True, color_system=None)


def edit(n_edits: int, seconds: float, n_new: int = 1) -> dict:
    requests = [{"subject": f"Town {i}", "target_new": " [red]Rome[/red]"} for i in range(n_new)]
    return {"n_edits": n_edits, "edit_s": seconds, "requests": requests}


def batches(fact, *sizes: int) -> list[list]:
    return [[fact] * size for size in sizes]


def row(n_edits: int, seconds: float) -> dict:
    return {"n_edits": n_edits, "time/eval_s": seconds, "ability/nli": 0.75, "ability/nli/gold_nll": 1.5,
            "drift/perplexity": 20.25}  # fmt: skip


def shown(display: Display) -> str:
    """The bar as it would be drawn now."""
    console = PlainConsole(file=io.StringIO(), width=120)
    console.print(display._bar.get_renderable())
    return console.file.getvalue()


def test_the_bar_says_how_many_edits_are_done_what_is_being_done_and_the_time_left(console, fact):
    with Display(console, batches(fact, *[1] * 10), due=lambda n, _new: n % 5 == 0) as display:
        display.doing("measuring: nli [1/8]")
        display.measured(row(0, 100.0))
        assert "0/10 edits" in shown(display) and "left" not in shown(display)  # no edit timed so far
        display.edited(edit(1, 4.0), {"edit/immediate/prob/efficacy": 1.0})
        display.edited(edit(2, 6.0), {"edit/immediate/prob/efficacy": 1.0})
        assert "measuring: nli [1/8]" in shown(display) and "2/10 edits" in shown(display)
        assert "0:04:00 left" in shown(display)  # 8 edits of 5 s each, 2 checkpoints of 100 s


def test_seconds_of_a_batch_are_shared_by_its_edits(console, fact):
    with Display(console, batches(fact, 5, 5), due=lambda n, _new: n % 10 == 0) as display:
        display.measured(row(0, 100.0))
        display.edited(edit(5, 50.0, n_new=5), {})
        assert "5/10 edits" in shown(display) and "0:02:30 left" in shown(display)


def test_more_than_a_day_left_is_said(console, fact):
    with Display(console, batches(fact, *[1] * 101), due=lambda n, _new: n % 200 == 0) as display:
        display.measured(row(0, 1.0))
        display.edited(edit(1, 3600.0), {})
        assert "4 days, 4:00:01 left" in shown(display)


def test_a_line_stays_of_each_edit_and_checkpoint_and_texts_are_no_markup(console, fact):
    with Display(console, batches(fact, 1, 1), due=lambda n, _new: n % 2 == 0) as display:
        display.measured(row(0, 30.0))
        display.edited(edit(1, 4.0), {"edit/immediate/prob/efficacy": 1.0})
        display.measured({"n_edits": 2, "time/eval_s": 3.0, "drift/perplexity": 20.25})  # task=none
    written = console.file.getvalue()
    assert "after 2 edits: perplexity 20.2  3 s" in written
    assert "after 0 edits: nli 0.75; perplexity 20.2  30 s" in written  # no gold_nll among the scores
    assert "edit 1: Town 0 →  [red]Rome[/red]  prob 1  4.0 s" in written


def test_while_a_run_goes_on_the_bar_is_on_the_terminal(console, fact):
    with Display(console, batches(fact, 1, 1), due=lambda n, _new: n % 2 == 0) as display:
        display.measured(row(0, 30.0))
        display.edited(edit(1, 4.0), {})
        display._bar.refresh()
        assert "1/2 edits" in console.file.getvalue() and "0:00:34 left" in console.file.getvalue()


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
    with Display(console, [], 1) as display:
        display.doing(hostile)
        console.print(display._bar)
    written = console.file.getvalue()
    plain = r"a[/b]c[bold]d :smile: \x1b[31mred\x1b]0;title\x07 \x9b2J \u202eback"
    assert written.count(plain) == 8 and not set(written) & set("\x1b\x07\x9b\u202e")
