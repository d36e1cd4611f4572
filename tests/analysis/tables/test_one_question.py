"""A question that one method's model still answers and another's no more, after as many edits as both have."""

from __future__ import annotations

from dataclasses import replace

import pytest

from afteredit.analysis.__main__ import main
from afteredit.analysis.numbers.comparison import Comparison
from afteredit.analysis.tables.one_question import one_question
from afteredit.tests.analysis.tables.test_same_questions import qa, run_of

BEFORE = [qa(0, i, 1.0, f"Town {i}") for i in range(3)]


def run(*at_5: str, later: str = ""):
    """A run that gives these answers to the questions 0, 1, … after five edits, and `later` to all after nine."""
    samples = [qa(5, i, 1.0 * (text == f"Town {i}"), text) for i, text in enumerate(at_5)]
    return run_of(*BEFORE, *samples, *[qa(9, i, 0.0, later) for i in range(3) if later])


HELD, WORSE = run("Town 0", "the the", "Town 2"), run("1 1 1", "Town 1", "a a " * 100, later="nothing")

LOST_FILE = replace(WORSE, samples=WORSE.samples[WORSE.samples["n_edits"] < 9])  # of the answers after nine edits


def test_both_models_are_asked_what_the_better_one_still_answers():
    """memit loses row 1 and rome rows 0 and 2; what rome says after nine edits, memit has no answer to."""
    assert one_question(Comparison("t", {"rome": [WORSE], "memit": [HELD]})) == [
        ("asked", "Where is 0?"),
        ("before any edit", "✓ Town 0"),
        ("after 5 edits by memit", "✓ Town 0"),
        ("after 5 edits by rome", "✗ 1 1 1"),
    ]


@pytest.mark.parametrize("runs", [
    {"rome": [WORSE]}, {"rome": [HELD], "memit": [HELD]}, {"rome": [run("no", "Town 1", "no")], "memit": [run("no")]},
    {"rome": [run_of(BEFORE[0])], "memit": [run_of(BEFORE[0])]}, {"rome": [LOST_FILE], "memit": [LOST_FILE]},
])  # fmt: skip
def test_where_no_such_question_was_asked_there_is_none(runs):
    assert one_question(Comparison("t", runs)) == []


def test_the_report_ends_with_it_and_the_place_of_the_picture(three_runs, tmp_path, capsys, monkeypatch, only_parts):
    only_parts("first_look")
    answers = [("asked", "Where is [b]it[/b]?\x1b[2J"), ("after 5 edits by rome", "✗ there")]
    monkeypatch.setattr("afteredit.analysis.tables.one_question.one_question", lambda _: answers)
    assert main(["report", str(three_runs), "--out", str(tmp_path / "out")]) == 0
    happened, asked, said, picture, page = capsys.readouterr().out.splitlines()
    assert happened.startswith("10 facts (edit set facts) were written into tiny")
    assert asked == r"asked                  Where is [b]it[/b]?\x1b[2J" and said == "after 5 edits by rome  ✗ there"
    assert picture == f"picture  {tmp_path}/out/first-look.png" and page.endswith("report.html")
