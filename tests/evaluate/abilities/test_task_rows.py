"""A task's rows come from the file that was asked for, and what would be scored wrong in silence is refused."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import datasets
import pytest

from afteredit.evaluate.abilities.ability import Ability
from afteredit.evaluate.abilities.build import build_tasks
from afteredit.evaluate.abilities.task_rows import find_rows, load_rows
from afteredit.evaluate.settings import MeasureSettings
from afteredit.launch.command_line import compose
from afteredit.store.errors import BadInput
from afteredit.store.rows.row_files import EMBEDDED

FILES = ["sentiment.jsonl", "sst2.jsonl"]
QUESTION = {"question": "who wrote it", "answers": ["Ada Quill"]}


@cache
def ability(task: str) -> Ability:
    return compose([f"task=[{task}]"]).tasks[task]


def settings_of(folder: Path) -> MeasureSettings:
    return MeasureSettings(
        data=str(folder), limit=None, harness=[], harness_path=None, held_out=None, held_out_tokens=8, change_shares=[]
    )


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_no_other_file_takes_the_place_of_one_that_cannot_be_read(tmp_path, kind):
    (tmp_path / "sst2.jsonl").write_text('{"sentence": "good", "label": 1}')
    assert find_rows("sentiment", FILES, str(tmp_path)) == tmp_path / "sst2.jsonl"
    first = tmp_path / "sentiment.jsonl"
    first.symlink_to(tmp_path / "gone") if kind == "link" else first.mkdir()
    with pytest.raises(BadInput, match=f"{first}: is .*{kind}"):
        find_rows("sentiment", FILES, str(tmp_path))


def test_files_of_another_kind_are_named_with_the_key_that_takes_them(tmp_path):
    (tmp_path / "sentiment.csv").write_text("sentence,label\ngood,1\nbad,negative\n")
    with pytest.raises(BadInput, match=r"there is sentiment.csv.*task.sentiment.rows=\["):
        find_rows("sentiment", FILES, str(tmp_path))
    rows = load_rows("sentiment", ["sentiment.csv"], {}, ability("sentiment").labels, str(tmp_path))["test"]
    assert list(rows) == [{"sentence": "good", "label": 1}, {"sentence": "bad", "label": 0}]


def test_texts_of_rows_are_in_their_normal_form(tmp_path):
    row = {"question": "who wrote Cafe\u0301 ", "answers": [" Ada Quill\u00a0", "A.\r\nQuill"]}
    (tmp_path / "open_qa.jsonl").write_text(json.dumps(row))
    assert list(load_rows("open_qa", ["open_qa.jsonl"], {}, {}, str(tmp_path))["test"]) == [
        {"question": "who wrote Café", "answers": ["Ada Quill", "A.\nQuill"]}]  # fmt: skip


def test_class_labels_of_the_hub_are_read_by_their_names(monkeypatch):
    from datasets import ClassLabel, Dataset, Features, List, Value

    hub = {
        "sentence1": Value("string"),
        "sentence2": Value("string"),
        "label": ClassLabel(names=["not_entailment", "entailment"]),
    }
    rows = Dataset.from_dict(
        {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": [0, 1]}, features=Features(hub)
    )
    monkeypatch.setattr("afteredit.store.rows.row_files.hub_data", lambda *_, **__: rows)
    nli = ability("nli")
    read = load_rows("nli", nli.rows, nli.hub, nli.labels, "hub")["test"]
    assert list(read) == [{"premise": "a", "hypothesis": "c", "label": "not_entailment"},
                          {"premise": "b", "hypothesis": "d", "label": "entailment"}]  # fmt: skip
    names = ClassLabel(names=["B-PER", "O", "I-PER"])
    tags = Features({"tokens": List(Value("string")), "ner_tags": List(names)})
    rows = Dataset.from_dict({"tokens": [["Ada", "Quill", "ran"]], "ner_tags": [[0, 2, 1]]}, features=tags)
    ner = ability("ner")
    assert load_rows("ner", ner.rows, ner.hub, ner.labels, "hub")["test"]["ner_tags"][0] == ["B-PER", "I-PER", "O"]


EMPTY = [("question", None), ("answers", []), ("answers", None)]


@pytest.mark.parametrize("column, value", EMPTY)
def test_a_row_without_question_or_answer_is_refused_by_its_column(tmp_path, column, value):
    (tmp_path / "open_qa.jsonl").write_text(f"{json.dumps(QUESTION)}\n{json.dumps(QUESTION | {column: value})}")
    settings = settings_of(tmp_path)
    refusal = (
        f"open_qa.jsonl:2: does not fit task=open_qa: field {column} is .*; allowed: a text, or a list of texts, not"
    )
    with pytest.raises(BadInput, match=refusal):
        build_tasks({"open_qa": ability("open_qa")}, settings)


def test_answers_as_squad_has_them_are_refused_with_what_is_wanted(tmp_path):
    of_squad = QUESTION | {"answers": {"text": ["Sun"], "answer_start": [4]}}
    (tmp_path / "open_qa.jsonl").write_text(json.dumps(of_squad))
    with pytest.raises(
        BadInput, match=r"field answers is \{'text': .*; allowed: a text, or a list of texts, not empty"
    ):
        build_tasks({"open_qa": ability("open_qa")}, settings_of(tmp_path))


NLI = {"premise": "It rains.", "hypothesis": "It is wet.", "label": 0}
CHAT = {"dialogue": "a: hi", "options": ["b: hi", "b: no", "b: yes", "b: so"], "answer": "A"}
REFUSED = [
    *(("open_qa", QUESTION, {"answers": answers}) for answers in (["Sun", ""], [" "], ["Sun", None], 7, {"x": 1})),
    *(("open_qa", QUESTION, {"question": question}) for question in ("", " ", 7, ["a"])),
    *(("reasoning", {"question": "1 + 1?", "answer": "It is 2.\n#### 2"}, {"answer": answer})
      for answer in ("no number", "#### ", "#### x", "#### 1/2", "x #### 4 y #### 5", "#### 18 men", "a\n\nb #### 2")),
    *(("open_qa", QUESTION, {"answers": answers}) for answers in (["Ada\nQuill"], ["Ada", "A\nB"])),
    *(("ner", {"tokens": ["Ada", "ran"], "ner_tags": ["B-PER", "O"]}, {"tokens": tokens})
      for tokens in (["A;B", "ran"], ["A\nB", "ran"])),
    *(("summarization", {"dialogue": "a: hi", "summary": "a greets"}, {"summary": summary})
      for summary in ("!!!", "巴黎")),  # ROUGE knows Latin letters and digits only
    *(("ner", {"tokens": ["Ada", "ran"], "ner_tags": ["B-PER", "O"]}, {"tokens": tokens})
      for tokens in (["Ada", None], ["Ada", ""], [], ["Ada"])),
    *(("nli", NLI, {"premise": premise}) for premise in ("", ["a"], [], 3)),
    ("nli", NLI | {"idx": 1}, {"idx": 10**30}),
    ("sentiment", {"sentence": "good", "label": 1}, {"sentence": 7}),
    ("summarization", {"dialogue": "a: hi", "summary": "a greets"}, {"dialogue": []}),
    ("summarization", {"dialogue": "a: hi", "summary": "a greets"}, {"summary": ["a greets"]}),
    *(("ner", {"tokens": ["Ada", "ran"], "ner_tags": ["B-PER", "O"]}, {"ner_tags": tags})
      for tags in ([1, 0, 0], ["B-DATE", "O"], "O O")),
    *(("dialogue", CHAT, {"options": options}) for options in ("", ["b", "c", "d", None], [*"bcd", ""], [1, 2, 3, 4])),
]  # fmt: skip


@pytest.mark.parametrize(("task", "row", "change"), REFUSED)
def test_a_row_that_would_be_asked_or_scored_as_something_else_is_refused(tmp_path, task, row, change):
    settings = settings_of(tmp_path)
    (tmp_path / f"{task}.jsonl").write_text(json.dumps(row))
    assert len(build_tasks({task: ability(task)}, settings)[0].task.eval_docs) == 1
    (tmp_path / f"{task}.jsonl").write_text(json.dumps(row | change))
    for rows, line in (([row | change], 1), ([row, row, row | change], 3)):
        (tmp_path / f"{task}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        with pytest.raises(BadInput, match=rf"{task}.jsonl:{line}: .*allowed: ") as told:
            build_tasks({task: ability(task)}, settings)
        assert next(iter(change)) in str(told.value)


TAKEN = [
    ("reasoning", {"question": "1?", "answer": answer}) for answer in ("18", "#### 1,000", "a\n#### -5.", "#### 18.")
]
TAKEN += [("summarization", {"dialogue": "a: hi", "summary": summary}) for summary in ("['Carol comes']", "[1]", "Yes")]
TAKEN += [("open_qa", QUESTION | {"answers": ["C++", "-5"]}),
          ("ner", {"tokens": ["St.", "Ives", "(town)"], "ner_tags": ["B-LOC", "I-LOC", "I-LOC"]}),
          ("ner", {"tokens": ["It", "rains"], "ner_tags": ["O", "O"]})]  # fmt: skip


@pytest.mark.parametrize(("task", "row"), TAKEN)
def test_a_gold_answer_that_scores_is_taken_as_it_stands(tmp_path, task, row):
    settings = settings_of(tmp_path)
    (tmp_path / f"{task}.jsonl").write_text(json.dumps(row))
    (built,) = build_tasks({task: ability(task)}, settings)
    gold = built.task.doc_to_target(built.task.eval_docs[0])
    assert task == "ner" or gold in row.values()


def test_rows_that_silence_would_answer_are_left_out_by_name(tmp_path, caplog):
    settings = settings_of(tmp_path)
    rows = [QUESTION, QUESTION | {"answers": ["!!!"]}, QUESTION | {"question": "and it"},
            QUESTION | {"answers": ["Sun", "+"]}]  # fmt: skip
    (tmp_path / "open_qa.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (built,) = build_tasks({"open_qa": ability("open_qa")}, settings)
    assert list(built.task.eval_docs) == [rows[0], rows[2]] and built.silent_score() == 0
    for told in ("2 of 4 rows left out", "open_qa.jsonl:2 (['!!!'])", "open_qa.jsonl:4 (['Sun', '+'])"):
        assert told in caplog.text
    (tmp_path / "open_qa.jsonl").write_text(json.dumps(rows[1]))
    with pytest.raises(BadInput, match=r"task=open_qa: no row can be measured.*open_qa.jsonl:1 \(\['!!!'\]\)"):
        build_tasks({"open_qa": ability("open_qa")}, settings)


def test_a_row_of_a_table_is_named_by_file_line_and_row_with_field_and_value(tmp_path):
    settings = settings_of(tmp_path)
    rows = [{"sentence": "good", "label": "1"}, {"sentence": "b\u200bad", "label": "0"}]
    sst = replace(ability("sentiment"), rows=["s.csv"])

    def refusal(cells: list[str]) -> str:
        (tmp_path / "s.csv").write_text("sentence,label\n" + "".join(f"{cell}\n" for cell in cells), "utf-8")
        with pytest.raises(BadInput) as problem:
            build_tasks({"sentiment": sst}, settings)
        return str(problem.value)

    assert "s.csv:4 (row 2): field label is 'go\\u200bod'; allowed: " in refusal(['"a\nb",1', "good,go\u200bod"])
    assert "s.csv:3 (row 2): does not fit task=sentiment: field sentence is None; allowed: " in refusal(["a,1", ",0"])
    assert "s.csv:2 (row 1): does not fit task=sentiment: field sentence is ['a']" in refusal(['"[""a""]",0'])
    assert "s.csv holds no rows; put the names of the columns on its first line" in refusal([])
    parquet = replace(sst, rows=["s.parquet"])
    datasets.Dataset.from_list([*rows, rows[0] | {"label": None}]).to_parquet(str(tmp_path / "s.parquet"))
    with pytest.raises(BadInput, match=r"s.parquet: row 3: field label is None; allowed: "):
        build_tasks({"sentiment": parquet}, settings)


MIXED = [
    (1, "x", "'x'"),
    ("a", 3, "3"),
    (["a"], "b", "'b'"),
    ({"x": 1}, [1], r"\[1\]"),
    (1, 2**64, str(2**64)),
    (True, "b", "'b'"),
]


@pytest.mark.parametrize(("first", "later", "named"), MIXED)
def test_a_value_of_another_kind_than_its_column_is_named(tmp_path, first, later, named):
    rows = [NLI | {"idx": None}, NLI | {"idx": first}, NLI | {"idx": later}]
    (tmp_path / "nli.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with pytest.raises(BadInput, match=f"nli.jsonl:3: field idx is {named}; allowed: .*of one kind"):
        load_rows("nli", ["nli.jsonl"], {}, ability("nli").labels, str(tmp_path))


@pytest.mark.parametrize("task", sorted(path.stem for path in Path(EMBEDDED).glob("*.jsonl")
                                        if not path.stem.startswith("facts")))  # fmt: skip
def test_embedded_rows_are_read_as_they_stand(task):
    read = load_rows(task, ability(task).rows, {}, ability(task).labels, "mini")["test"]
    assert list(read) == [json.loads(line) for line in (EMBEDDED / f"{task}.jsonl").read_text("utf-8").splitlines()]
