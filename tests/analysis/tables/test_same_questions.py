"""What was said to the same question: rows that were right and are wrong now come first; older runs kept nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import pandas as pd
import pytest
from rich.console import Console

from afteredit.analysis.numbers.comparison import Comparison
from afteredit.analysis.read.run import Run
from afteredit.analysis.tables.report_tables.same_questions import part
from afteredit.analysis.tables.same_questions import same_questions, same_questions_table, shortened


def example(n_edits: int, name: str, doc_id: int, numerator: float, **said) -> dict:
    return {"kind": "ability", "n_edits": n_edits, "name": name, "doc_id": float(doc_id), "numerator": numerator,
            "denominator": 1.0, **said}  # fmt: skip


def qa(n_edits: int, doc_id: int, numerator: float, answer: str) -> dict:
    asked = {"question": f"Where is {doc_id}?", "wanted": f"Town {doc_id}"} if n_edits == 0 else {}
    return example(n_edits, "open_qa", doc_id, numerator, answer=answer, **asked)


def chosen(n_edits: int, doc_id: int, right: float, choice: int, asked: bool = True) -> dict:
    texts = {"question": f"Is it {doc_id}?", "wanted": "Yes", "choices": json.dumps(["Yes", "No"])}
    return example(n_edits, "nli", doc_id, right, choice=float(choice), **(texts if n_edits == 0 and asked else {}))


def run_of(*samples: dict, setting: str = "sequential") -> Run:
    rows = [{"n_edits": n} for n in sorted({sample["n_edits"] for sample in samples})]
    return Run("rome-tiny-1", "aaaaaaaa", {"setting": setting}, rows, pd.DataFrame(samples))


@pytest.fixture
def run() -> Run:
    """Two questions and one statement are lost at last; one answer is a little worse; one row is won; one stays."""
    before = [qa(0, 0, 1.0, " Town 0"), qa(0, 1, 1.0, "Town 1"), qa(0, 2, 0.0, ""), qa(0, 3, 0.4, "Towns"),
              chosen(0, 0, 1.0, 0), chosen(0, 1, 1.0, 0)]  # fmt: skip
    middle = [qa(5, i, 1.0, f"Town {i}") for i in range(3)] + [qa(5, 3, 0.4, "Towns"), chosen(5, 0, 0.0, 1)]
    after = [qa(9, 0, 0.0, "the the"), qa(9, 1, 0.0, "\n"), qa(9, 2, 1.0, "Town 2"), qa(9, 3, 0.25, "Tow"),
             chosen(9, 0, 0.0, 1), chosen(9, 1, 1.0, 0)]  # fmt: skip
    return run_of(*before, *middle, *after)


def test_lost_rows_come_first_of_every_ability_in_turn_and_then_those_that_fell(run):
    table = same_questions(run, 5)
    assert list(zip(table["ability"], table["row"], table["change"], strict=True)) == [
        ("open_qa", "0", "right → wrong"), ("nli", "0", "right → wrong"), ("open_qa", "1", "right → wrong"),
        ("open_qa", "3", "less"), ("nli", "1", "same"), ("open_qa", "2", "wrong → right")]  # fmt: skip
    first, second, third, fourth, fifth, _ = table.to_dict("records")
    assert (first["question"], first["wanted"]) == ("Where is 0?", "Town 0")
    assert [first[f"after {n}"] for n in (0, 5, 9)] == ["✓ Town 0", "✓ Town 0", "✗ the the"]
    assert [second[f"after {n}"] for n in (0, 5, 9)] == ["✓ Yes", "✗ No", "✗ No"]
    assert third["after 9"] == "✗ (nothing)"
    assert [fourth[f"after {n}"] for n in (0, 9)] == ["0.40 Towns", "0.25 Tow"]
    assert fifth["after 5"] == ""  # not measured there


def test_of_many_checkpoints_the_first_and_the_last_are_shown(run):
    assert [name for name in same_questions(run, 2) if name.startswith("after")] == ["after 0", "after 9"]


def test_where_models_are_edited_alone_the_change_is_that_of_their_mean():
    samples = [chosen(0, 0, 1.0, 0), chosen(1, 0, 0.0, 1), chosen(2, 0, 1.0, 0), chosen(0, 1, 1.0, 0),
               chosen(1, 1, 1.0, 0), chosen(2, 1, 1.0, 0)]  # fmt: skip
    assert same_questions(run_of(*samples, setting="single"), 5)["change"].tolist() == ["right → wrong", "same"]
    assert same_questions(run_of(*samples), 5)["change"].tolist() == ["same", "same"]


def test_of_other_peoples_rows_the_id_the_score_and_the_number_of_the_choice_are_left():
    (line,) = same_questions(run_of(chosen(0, 7, 1.0, 0, asked=False), chosen(5, 7, 0.0, 1)), 5).to_dict("records")
    assert line == {"ability": "nli", "row": "7", "change": "right → wrong", "question": "", "wanted": "",
                    "after 0": "✓ choice 1", "after 5": "✗ choice 2"}  # fmt: skip


def test_a_run_that_kept_no_answers_has_no_table(x):
    assert same_questions(x.first, 5).empty and part(x, []) is None
    assert same_questions(Run("a", "b", {}, [{"n_edits": 0}]), 5).empty
    edits_alone = pd.DataFrame([{"kind": "retained", "n_edits": 0, "name": "generated/efficacy", "answer": " Chad"}])
    assert same_questions(Run("a", "b", {}, [{"n_edits": 0}], edits_alone), 5).empty  # task=none


def test_the_report_shows_lost_rows_of_each_method_and_counts_them(run):
    config = {"task": {"nli": {"title": "Inference <b>"}}, "seed": 1}
    shown = part(Comparison("t", {"rome": [replace(run, config=config)], "memit": [replace(run, config=config)]}), [])
    assert list(shown.table) == ["method", "ability", "row", "question", "wanted", "after 0", "after 5", "after 9"]
    assert shown.table["method"].tolist() == ["rome"] * 6 + ["memit"] * 6
    assert shown.table.iloc[1]["ability"] == "Inference <b>" and "rome: 3 of 6; memit: 3 of 6" in shown.note


def test_the_terminal_shows_the_lost_rows_with_their_answers_below_each_other(run):
    console = Console(width=90, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(same_questions_table(same_questions(run, 5)))
    text = console.export_text()
    assert "3 of 6 rows were right and are wrong now" in text
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if "│" in line]
    assert lines[:5] == [["open_qa 0", "", "Where is 0?"], ["", "wanted", "Town 0"], ["", "0", "✓ Town 0"],
                         ["", "5", "✓ Town 0"], ["", "9", "✗ the the"]]  # fmt: skip
    assert [line[0] for line in lines if line[0]] == ["open_qa 0", "nli 0", "open_qa 1"]


def test_a_long_text_loses_its_middle():
    assert shortened("one\n two", 10) == "one two"
    assert shortened("a" * 50 + "b" * 50, 30) == "a" * 10 + " … " + "b" * 17
