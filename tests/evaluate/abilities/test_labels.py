"""Labels of every usual kind give the same answers in every task; none is taken for a class that it does not name."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

from afteredit.evaluate.abilities.ability import Ability
from afteredit.evaluate.abilities.built_ability import BuiltAbility
from afteredit.evaluate.abilities.task_rows import load_rows
from afteredit.launch.command_line import compose
from afteredit.store.errors import BadInput
from afteredit.store.rows.row_files import EMBEDDED

HUB = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC"]  # numbered so in conll2003
COLUMN = {"closed_qa": "answer", "sentiment": "label", "nli": "label", "dialogue": "answer", "ner": "ner_tags"}
NUMBER = {"closed_qa": int, "sentiment": int, "nli": ["entailment", "not_entailment"].index, "dialogue": "ABCD".index,
          "ner": lambda tags: [HUB.index(tag) for tag in tags]}  # fmt: skip
NAME = {"closed_qa": ["no", "yes"], "sentiment": ["negative", "positive"], "nli": ["entailment", "not_entailment"],
        "dialogue": "ABCD"}  # fmt: skip
TASKS = [*COLUMN, *(f"paper_{task}" for task in COLUMN)]  # the paper's scoring reads the same rows
PAPER = {"paper_closed_qa": [" no", " yes"], "paper_sentiment": [" negative", " positive"],
         "paper_nli": [" True", " False"], "paper_dialogue": [" A", " B", " C", " D"]}  # fmt: skip


def listed(change):
    """Applies a change to a label, or to each of a list."""
    return lambda value: [change(inner) for inner in value] if isinstance(value, list) else change(value)


KINDS = {
    "number": lambda task, value: NUMBER[task](value),
    "number_of_pandas": lambda task, value: listed(float)(NUMBER[task](value)),
    "number_as_text": lambda task, value: listed(str)(NUMBER[task](value)),
    "name": lambda task, value: value if task == "ner" else NAME[task][NUMBER[task](value)],
    "name_in_capitals": lambda task, value: listed(str.upper)(KINDS["name"](task, value)),
    "name_with_spaces": lambda task, value: listed(lambda name: f" {name.replace('_', ' ')}\u00a0")(
        KINDS["name"](task, value)),
    "true_or_false": lambda task, value: bool(value),
    "true_or_false_as_text": lambda task, value: str(bool(value)),
}  # fmt: skip
REFUSED = {(task, kind) for task in ("nli", "dialogue", "ner") for kind in ("true_or_false", "true_or_false_as_text")}


def rows_of(ability: str) -> list[dict]:
    return [json.loads(line) for line in (EMBEDDED / f"{ability}.jsonl").read_text(encoding="utf-8").splitlines()[:12]]


@cache
def abilities() -> dict[str, Ability]:
    return compose([f"task=[{','.join(TASKS)}]"]).tasks


def written(folder: Path, ability: str, rows: list[dict]) -> str:
    (folder / f"{ability}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(folder)


def labels_read(folder: Path, task: str, rows: list[dict]) -> list:
    ability, column = abilities()[task], COLUMN[task.removeprefix("paper_")]
    folder_of_rows = written(folder, task.removeprefix("paper_"), rows)
    return load_rows(task, ability.rows, {}, ability.labels, folder_of_rows)["test"][column]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", TASKS)
def test_every_kind_of_label_is_the_same_class_or_refused(tmp_path, task, kind):
    ability = task.removeprefix("paper_")
    rows, column = rows_of(ability), COLUMN[ability]
    changed = [row | {column: KINDS[kind](ability, row[column])} for row in rows]
    if (ability, kind) in REFUSED:
        with pytest.raises(BadInput, match=rf"{ability}.jsonl:1: field {column} is .*; allowed: "):
            labels_read(tmp_path, task, changed)
        return
    classes = labels_read(tmp_path, task, changed)
    assert list(classes) == [row[column] for row in rows]
    assert len({json.dumps(label) for label in classes}) > 1


@pytest.mark.parametrize("task", ["closed_qa", "nli"])
def test_lm_eval_scores_the_answer_that_the_label_names(tmp_path, task):
    rows, column = rows_of(task), COLUMN[task]
    changed = [row | {column: KINDS["name_in_capitals"](task, row[column])} for row in rows]
    built = BuiltAbility(task, abilities()[task], written(tmp_path, task, changed), None).task
    assert [built.doc_to_target(row) for row in built.eval_docs] == [NUMBER[task](row[column]) for row in rows]


@pytest.mark.parametrize("task", PAPER)
def test_the_papers_scoring_takes_only_the_answer_that_the_label_names(tmp_path, task):
    ability = task.removeprefix("paper_")
    rows, column = rows_of(ability), COLUMN[ability]
    changed = [row | {column: KINDS["name_in_capitals"](ability, row[column])} for row in rows]
    built = BuiltAbility(task, abilities()[task], written(tmp_path, ability, changed), None).task
    right = [[built.process_results(row, [answer])["score"] for answer in PAPER[task]] for row in built.eval_docs]
    numbers = [NUMBER[ability](row[column]) for row in rows]
    assert right == [[float(at == number) for at in range(len(PAPER[task]))] for number in numbers]
    assert [built.doc_to_target(row) for row in built.eval_docs] == [PAPER[task][number] for number in numbers]


UNKNOWN = {"closed_qa": ["maybe", 2, -1, 0.5, None, [True], float("inf")], "sentiment": ["neutral", 2, "2", -1, None],
           "nli": ["contradiction", 2, -1, None, ""], "dialogue": ["E", 4, "-1", None, ["A"]],
           "ner": [["S-PER"], ["B-GPE"], [9], [None], None, "O O"]}  # fmt: skip


@pytest.mark.parametrize("scoring", ["", "paper_"])
@pytest.mark.parametrize(("ability", "label"), [(name, label) for name, labels in UNKNOWN.items() for label in labels])
def test_a_label_that_names_no_class_is_refused_with_its_line_and_the_classes(tmp_path, ability, label, scoring):
    rows = rows_of(ability)[:2]
    rows[1][COLUMN[ability]] = label
    with pytest.raises(BadInput, match=rf"{ability}.jsonl:2: field {COLUMN[ability]} is .*; allowed: .*1"):
        labels_read(tmp_path, scoring + ability, rows)


def test_a_task_without_its_label_column_says_which_it_needs(tmp_path):
    rows = [{key: value for key, value in row.items() if key != "label"} for row in rows_of("nli")]
    with pytest.raises(BadInput, match=r"nli.jsonl:1: has no column label; its columns: .*premise.*entailment or 0"):
        labels_read(tmp_path, "nli", rows)
