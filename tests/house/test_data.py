"""The embedded rows are what they claim to be: complete, balanced, without repeats, answers not given away.

Which sets there are is read from `conf/task/`, so that a new ability needs no line here; tests of single sets follow.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from pathlib import Path
from statistics import mean

import pytest
import yaml

from afteredit.evaluate.abilities.built_ability import BuiltAbility
from afteredit.launch.command_line import compose

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "data"
OWN_ROWS = {"paper_open_qa"}  # the paper's other tasks ask about the rows of another task
CONFIGS = {path.stem: yaml.safe_load(path.read_text("utf-8")) for path in sorted((ROOT / "conf/task").glob("*.yaml"))}
TASKS = {name: config for name, config in CONFIGS.items() if config and "rows" in config
         and (not name.startswith("paper_") or name in OWN_ROWS)}  # fmt: skip
CHOSEN = [task for task, config in TASKS.items() if config["lm_eval"]["output_type"] == "multiple_choice"]
KINDS = ("PER", "LOC", "ORG", "MISC")


def rows(name: str) -> list[dict]:
    path = DATA / f"{name.replace('paper_', 'paper/')}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def words(text: str | list[str]) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", (text if isinstance(text, str) else " ".join(text)).lower()))


def says(text: str, phrase: str) -> bool:
    """Whether the phrase stands in the text as whole words."""
    return re.search(rf"\b{re.escape(phrase.strip())}\b", text, re.IGNORECASE) is not None


def main_texts(name: str) -> list[set[str]]:
    """Returns the words of each row's main text: of the column that holds the most words."""
    texts = {column: [words(row[column]) for row in rows(name)] for column, value in rows(name)[0].items()
             if isinstance(value, str | list)}  # fmt: skip
    return max(texts.values(), key=lambda column: mean(map(len, column)))


def test_every_set_belongs_to_one_ability():
    files = [config["rows"][0] for config in TASKS.values()]
    there = {str(path.relative_to(DATA)) for path in DATA.rglob("*.jsonl")}
    assert there == {*files, "facts.jsonl", "facts_train.jsonl"}
    assert len(files) == len(set(files))
    assert {config["rows"][0] for config in CONFIGS.values() if config and "rows" in config} == set(files)


@pytest.mark.parametrize("name", TASKS)
def test_rows_are_enough_numbered_and_complete(name):
    assert len(rows(name)) >= 60
    assert [row["row"] for row in rows(name)] == list(range(len(rows(name))))
    assert all(list(row) == list(rows(name)[0]) for row in rows(name))
    assert all(value not in ("", [], None) for row in rows(name) for value in row.values())


@pytest.mark.parametrize("name", TASKS)
def test_no_row_repeats_another_or_nearly_so(name):
    close = [(i, j, round(len(a & b) / len(a | b), 2))
             for (i, a), (j, b) in itertools.combinations(enumerate(main_texts(name)), 2)
             if len(a & b) > 0.6 * len(a | b)]  # fmt: skip
    assert not close


@pytest.mark.parametrize("name", CHOSEN)
def test_answers_are_balanced_among_the_first_rows_too(name):
    ability = compose([f"task=[{name}]"]).tasks[name]
    task = BuiltAbility(name, ability, "mini", None).task
    answers = [task.doc_to_target(doc) for doc in task.eval_docs]
    n_choices = round(1 / ability.chance)
    for first in (24, 64, None):
        counts, fair = Counter(answers[:first]), len(answers[:first]) / n_choices
        assert len(counts) == n_choices
        assert all(0.75 * fair <= n <= 1.25 * fair for n in counts.values()), (first, counts)


def test_labels_are_those_the_tasks_read():
    assert {row["label"] for row in rows("nli")} == {"entailment", "not_entailment"}
    assert {row["label"] for row in rows("sentiment")} == {0, 1}
    assert all(isinstance(row["answer"], bool) for row in rows("closed_qa"))
    assert all(len(set(row["options"])) == 4 and row["answer"] in "ABCD" for row in rows("dialogue"))


def test_open_questions_do_not_hold_their_answers():
    leaks = [
        (row["row"], answer) for row in rows("open_qa") for answer in row["answers"] if says(row["question"], answer)
    ]
    assert not leaks


def test_the_papers_open_questions_are_the_others_with_a_passage():
    assert [{**row, "passage": None} for row in rows("paper_open_qa")] == [
        {**row, "passage": None} for row in rows("open_qa")
    ]


def test_reasoning_answers_are_worked_out_right_and_not_read_off_the_question():
    wrong, given = [], []
    for row in rows("reasoning"):
        sums = re.findall(r"<<([0-9+\-*/.() ]+)=([0-9.]+)>>", row["answer"])
        final = re.fullmatch(r".*\n#### (\d+)", row["answer"], re.DOTALL)
        right = sums and final and all(eval(left) == float(result) for left, result in sums)  # noqa: S307 - digits only
        if not right or float(sums[-1][1]) != float(final[1]):
            wrong.append(row["row"])
        elif re.search(rf"(?<![\d.]){final[1]}(?![\d.])", row["question"]):
            given.append(row["row"])
    assert not wrong
    assert not given


def test_names_are_tagged_in_valid_iob2():
    bad = []
    for row in rows("ner"):
        valid = len(row["tokens"]) == len(row["ner_tags"]) and all(token.strip() == token for token in row["tokens"])
        for before, tag in zip(["O", *row["ner_tags"]], row["ner_tags"], strict=False):
            kind = tag[2:]
            valid &= tag == "O" or (tag[:2] in ("B-", "I-") and kind in KINDS)
            valid &= tag[:2] != "I-" or before in (f"B-{kind}", f"I-{kind}")
        if not valid:
            bad.append(row["row"])
    assert not bad
    tags = Counter(tag[2:] for row in rows("ner") for tag in row["ner_tags"] if tag[:2] == "B-")
    assert all(tags[kind] >= 5 for kind in KINDS)
    assert 1 <= sum(all(tag == "O" for tag in row["ner_tags"]) for row in rows("ner")) < len(rows("ner")) / 3


def test_summaries_are_shorter_than_their_chats_and_not_copied():
    long = [row["row"] for row in rows("summarization") if len(row["summary"]) > 0.8 * len(row["dialogue"])]
    copied = [row["row"] for row in rows("summarization") if row["summary"].strip(".") in row["dialogue"]]
    assert not long and not copied


@pytest.mark.parametrize(("name", "least"), [("facts", 200), ("facts_train", 100)])
def test_facts_are_many_varied_and_whole(name, least):
    facts = rows(name)
    assert len(facts) >= least
    assert len({fact["relation"] for fact in facts}) >= 10
    assert all(
        len(fact["paraphrases"]) >= 2 and len(set(fact["paraphrases"])) == len(fact["paraphrases"]) for fact in facts
    )
    assert all(len(f["neighbourhood"]) == len(f["neighbourhood_targets"]) >= 5 for f in facts)
    assert len({fact["id"] for fact in facts}) == len(facts)
    assert all(fact["prompt"].count("{}") == 1 and fact["target_new"] != fact["target_true"] for fact in facts)
    assert not [f["id"] for f in facts for text in f["paraphrases"] if f["subject"] not in text]


def test_subjects_stand_once_and_not_in_both_sets():
    subjects = [fact["subject"].casefold() for name in ("facts", "facts_train") for fact in rows(name)]
    assert [subject for subject, n in Counter(subjects).items() if n > 1] == []


@pytest.mark.parametrize("name", ["facts", "facts_train"])
def test_no_prompt_gives_its_target_away(name):
    leaks = []
    for fact in rows(name):
        texts = [fact["prompt"].replace("{}", fact["subject"]), *fact["paraphrases"]]
        leaks += [(fact["id"], text) for text in texts for target in (fact["target_new"], fact["target_true"])
                  if says(text, target)]  # fmt: skip
        neighbours = zip(fact["neighbourhood"], fact["neighbourhood_targets"], strict=True)
        leaks += [(fact["id"], text) for text, answer in neighbours if says(text, answer)]
    assert not leaks


@pytest.mark.parametrize("name", ["facts", "facts_train"])
def test_neighbours_are_about_other_subjects(name):
    wrong = [(fact["id"], text) for fact in rows(name) for text in fact["neighbourhood"] if says(text, fact["subject"])]
    assert not wrong


def test_every_fact_is_read_as_an_edit():
    requests, digest = compose([]).edits.read("mini", seed=0)
    assert len(requests) == len(rows("facts")) and len(digest) == 64


def test_the_held_out_text_is_long_enough_for_its_default_of_tokens():
    assert len((DATA / "heldout.txt").read_text(encoding="utf-8")) > 2048 * 3.5
