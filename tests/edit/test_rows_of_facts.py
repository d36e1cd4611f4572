"""Rows from users' files become the facts that they mean, or are refused; no other row takes their place."""

import json
import logging
import os
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest

from afteredit.edit.edit_set import EditSet, OnBadRow
from afteredit.edit.request import EditRequest, refuse_conflicts
from afteredit.store.errors import BadInput

COLUMNS = {name: name for name in ("id", "subject", "prompt", "target_new", "target_true", "relation", "paraphrases",
                                   "neighbourhood", "neighbourhood_answers", "portability", "portability_answers",
                                   "generation_prompts")}  # fmt: skip
ROW = {"id": "r1", "subject": "Perú", "prompt": "The capital of {} is", "target_new": "Oslo", "target_true": "Lima",
       "relation": "capital", "paraphrases": ["Perú is ruled from"], "neighbourhood": ["The capital of Chile is"],
       "neighbourhood_answers": ["Santiago"], "portability": ["The language of Perú's capital is"],
       "portability_answers": ["Norwegian"], "generation_prompts": ["Perú has"]}  # fmt: skip
FACT = EditRequest(
    id="r1", subject="Perú", prompt="The capital of {} is", target_new="Oslo", target_true="Lima", relation="capital",
    paraphrases=("Perú is ruled from",), neighbourhood=("The capital of Chile is",),
    neighbourhood_answers=("Santiago",), portability=("The language of Perú's capital is",),
    portability_answers=("Norwegian",), generation_prompts=("Perú has",))  # fmt: skip
EDITS = EditSet(name="mine", file="mine.jsonl", columns=COLUMNS)


def facts(folder: Path, *rows: dict, **changes) -> list[EditRequest]:
    (folder / "mine.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    return replace(EDITS, **changes).read(str(folder), 0)[0]


def each_text(value, change):
    if isinstance(value, str):
        return change(value)
    return [each_text(inner, change) for inner in value]


CHANGES = {
    "space": lambda text: f"{text} ",
    "line_end": lambda text: f"\n{text}\r\n",
    "non_breaking": lambda text: f"\u00a0{text}\u202f",
    "zero_width": lambda text: f"\ufeff{text}\u200b",
    "decomposed": lambda text: unicodedata.normalize("NFD", text),
}


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("name", CHANGES)
def test_spaces_at_the_ends_and_unicode_forms_of_any_field_change_no_fact(tmp_path, name, whole):
    row = ROW | ({"prompt": "The capital of Perú is"} if whole else {})
    (changed,) = facts(tmp_path, {key: each_text(value, CHANGES[name]) for key, value in row.items()})
    assert changed == FACT
    for key, value in row.items():
        assert facts(tmp_path, row | {key: each_text(value, CHANGES[name])}) == [FACT]


@pytest.mark.parametrize("name", CHANGES)
def test_a_request_from_python_is_read_as_its_row_is(name):
    assert EditRequest(**{field: each_text(value, CHANGES[name]) for field, value in ROW.items()}) == FACT
    assert EditRequest(**ROW | {"paraphrases": ["{} is ruled from"]}) == FACT


@pytest.mark.parametrize(("field", "given", "told"), [
    ("target_true", "", "target_true is ''"), ("target_true", "\u00a0", "target_true is ''"), ("id", " ", "id is ''"),
    ("paraphrases", "Perú is ruled from", "a list of texts"), ("neighbourhood_answers", [1], "a list of texts"),
    ("generation_prompts", ["Perú has", "\u200b"], "a prompt must not be empty"),
    ("paraphrases", ["{subject} is ruled from"], "write {} for {subject}"),
    ("neighbourhood", ["The capital of [X] is"], r"write {} for \[X\]"),
    ("paraphrases", ["%s is ruled from"], "write {} for %s"),
    ("generation_prompts", ["What is %s?"], "write {} for %s"),
    ("paraphrases", ["{ } is ruled from"], "write {} for { }"),
    ("portability", ["The language of {{}} is"], "write {} for {{}}"),
    ("neighbourhood", ["The sea of {{ subject }} is"], "write {} for {{ subject }}"),
    ("paraphrases", ["首都在{ entity }"], "write {} for { entity }"),
    ("prompt", "The capital of {{}} is", "prompt holds .*write {} for {{}}"),
    ("prompt", "The capital of {} is called, by [X],", r"write {} for \[X\]"),
    ("subject", "Per\ud800", "half a surrogate pair"), ("relation", ["capital"], "relation"),
])  # fmt: skip
def test_a_request_from_python_is_refused_as_its_row_is(field, given, told):
    with pytest.raises(BadInput, match=told):
        EditRequest(**ROW | {field: given})


@pytest.mark.parametrize("text", [r"\hat{x} is", 'In C printf("%s", name) prints', "Of 100%s and 5 %st",
                                  "{Perú} or {Chile}", "the set {…} of all"])  # fmt: skip
def test_what_only_looks_like_a_placeholder_is_none(text):
    assert EditRequest(**ROW | {"neighbourhood": [text]}).neighbourhood == (text,)


def test_braces_get_the_subject_in_every_prompt(tmp_path):
    (fact,) = facts(tmp_path, ROW | {"paraphrases": ["{} is ruled from"], "neighbourhood": ["The sea of {} is"],
                                     "portability": ["The language of {}'s capital is"],
                                     "generation_prompts": "{} has"})  # fmt: skip
    assert fact == replace(FACT, neighbourhood=("The sea of Perú is",))
    (fact,) = facts(tmp_path, ROW | {"subject": "typeof {}", "prompt": "The result of typeof {} is",
                                     "paraphrases": ["typeof {} gives", "In code, {} gives"]})  # fmt: skip
    assert fact.question == "The result of typeof {} is" and fact.subject_start == len("The result of ")
    assert fact.paraphrases == ("typeof {} gives", "In code, typeof {} gives")


@pytest.mark.parametrize(("given", "read"), [(0.0, "0"), (7, "7"), (1e3, "1000"), ("a ", "a"), (None, "mine-1")])
def test_ids_are_texts_and_whole_numbers(tmp_path, given, read):
    assert facts(tmp_path, ROW | {"id": given})[0].id == read


@pytest.mark.parametrize("given", [0.5, True, [1], float("inf")])
def test_other_ids_are_refused(tmp_path, given):
    with pytest.raises(BadInput, match=r"mine.jsonl:1: field id is .* whole number"):
        facts(tmp_path, ROW | {"id": given})


SAME_FACT = {
    "space": {"subject": "Perú "},
    "decomposed": {"subject": unicodedata.normalize("NFD", "Perú")},
    "capitals": {"subject": "PERÚ"},
    "zero_width": {"subject": "Pe\u200brú"},
    "prompt_with_two_spaces": {"relation": None, "target_true": None, "prompt": "The  capital of {} is"},
    "prompt_in_capitals": {"relation": None, "target_true": None, "prompt": "THE CAPITAL OF {} IS"},
    "true_answer": {"relation": None, "target_true": " lima", "prompt": "{} is ruled from"},
    "relation": {"relation": "Capital\u00a0", "prompt": "{} is ruled from"},
}


@pytest.mark.parametrize("name", SAME_FACT)
def test_one_fact_in_two_spellings_cannot_get_two_targets(tmp_path, name):
    other = ROW | {"id": "r2", "target_new": "Bern"} | SAME_FACT[name]
    with pytest.raises(BadInput, match="r1 .*mine.jsonl:1.* and r2 .*mine.jsonl:2.*'Oslo' and 'Bern'"):
        refuse_conflicts(facts(tmp_path, ROW, other))
    assert [fact.id for fact in facts(tmp_path, ROW, other, distinct=True)] == ["r1"]
    refuse_conflicts(facts(tmp_path, ROW, other | {"target_new": "OSLO "}))


@pytest.mark.parametrize("true", ["Oslo", " Oslo", "oslo", "O\u200bslo"])
def test_an_unchanged_target_names_the_key_that_leaves_such_rows_out(tmp_path, true):
    rows = [ROW, ROW | {"id": "r2", "target_true": true}]
    with pytest.raises(BadInput, match=r"mine.jsonl:2: target_new and target_true .*\+\+edits.drop_unchanged=true"):
        facts(tmp_path, *rows)
    assert facts(tmp_path, *rows, drop_unchanged=True) == [FACT]


def test_bad_rows_are_skipped_counted_and_named_where_that_is_asked_for(tmp_path, caplog):
    bad = [ROW | {"id": "b1", "subject": None}, ROW | {"id": "b2", "prompt": "Perú and Perú are"}, ROW,
           ROW | {"id": "b3", "target_new": 5}]  # fmt: skip
    with pytest.raises(BadInput, match=r"mine.jsonl:2: field subject is None.*\+\+edits.on_bad_row=skip"):
        facts(tmp_path, ROW, *bad)
    assert facts(tmp_path, ROW, *bad, on_bad_row=OnBadRow.skip) == [FACT]
    (told,) = (record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING)
    assert "4 bad rows skipped" in told
    for place, reason in ((2, "subject"), (3, "2 times"), (4, "twice"), (5, "target_new is 5")):
        assert f"mine.jsonl:{place}: " in told and reason in told
    with pytest.raises(BadInput, match="holds no usable rows"):
        facts(tmp_path, bad[0], on_bad_row=OnBadRow.skip)


def test_a_line_that_is_no_json_is_one_bad_row(tmp_path):
    (tmp_path / "mine.jsonl").write_text(f'{{"id": \n{json.dumps(ROW)}\n')
    assert replace(EDITS, on_bad_row=OnBadRow.skip).read(str(tmp_path), 0)[0] == [FACT]


def test_a_table_of_texts_is_read_by_the_same_columns(tmp_path):
    (tmp_path / "mine.csv").write_text('id,prompt,subject,target_new,target_true\n7,{} began in,"Rome, Italy",1998,\n')
    columns = {name: name for name in ("id", "prompt", "subject", "target_new", "target_true")}
    assert replace(EDITS, file="mine.csv", columns=columns).read(str(tmp_path), 0)[0] == [
        EditRequest(id="7", subject="Rome, Italy", prompt="{} began in", target_new="1998")]  # fmt: skip


def test_a_cell_is_one_prompt_unless_it_looks_like_a_list(tmp_path):
    columns = {name: COLUMNS[name] for name in ("subject", "prompt", "target_new", "paraphrases")}
    edits = replace(EDITS, file="mine.csv", columns=columns)
    for cell in ("Perú; Chile", "Perú|Chile", "Perú [sic]"):
        (tmp_path / "mine.csv").write_text(f"subject,prompt,target_new,paraphrases\nPerú,Perú is,Oslo,{cell}\n")
        assert edits.read(str(tmp_path), 0)[0][0].paraphrases == (cell,)
    (tmp_path / "mine.csv").write_text("subject,prompt,target_new,paraphrases\nPerú,Perú is,Oslo,[Perú lies in]\n")
    with pytest.raises(
        BadInput, match=r"mine.csv:2 .*field paraphrases is '\[Perú lies in\]', which looks like a list"
    ):
        edits.read(str(tmp_path), 0)


@pytest.mark.parametrize("field", ["neighbourhood_answers", "portability_answers"])
@pytest.mark.parametrize("cell", ["[Santiago, Sucre]", "[“Santiago”, “Sucre”]", "[Norwegian]"])
def test_a_list_of_answers_without_quotes_is_no_single_answer(tmp_path, field, cell):
    (tmp_path / "mine.jsonl").write_text(json.dumps(ROW | {field: cell}) + "\n")
    with pytest.raises(BadInput, match="which looks like a list; write it as JSON"):
        EDITS.read(str(tmp_path), 0)


def test_the_digest_names_the_facts_and_nothing_else(tmp_path):
    def digest(*rows: dict, **changes) -> str:
        facts(tmp_path, *rows)
        return replace(EDITS, **changes).read(str(tmp_path), 0)[1]

    assert digest(ROW) == digest(ROW | {"note": "seen"}) == digest(ROW | {"subject": "Perú "})
    swapped = COLUMNS | {"target_new": "target_true", "target_true": "target_new"}
    assert len({digest(ROW), digest(ROW, columns=swapped), digest(ROW | {"target_new": "Bern"})}) == 3


@pytest.mark.parametrize("kind", ["missing", "link", "folder", "pipe", "other_ending"])
def test_embedded_rows_never_take_the_place_of_a_users_file(tmp_path, kind):
    path = tmp_path / "facts.jsonl"  # the name of an embedded file
    make = {"link": lambda: path.symlink_to(tmp_path / "gone"), "folder": path.mkdir, "pipe": lambda: os.mkfifo(path),
            "other_ending": lambda: (tmp_path / "facts.csv").write_text("subject\nPeru\n")}  # fmt: skip
    make.get(kind, lambda: None)()
    told = {"link": "a link to a file that is not there", "folder": "a folder", "pipe": "a pipe",
            "missing": "give data=", "other_ending": r"\(there is facts.csv\).*edits.(file|train)="}[kind]  # fmt: skip
    for read in (lambda: replace(EDITS, file="facts.jsonl").read(str(tmp_path), 0),
                 lambda: replace(EDITS, train="facts.jsonl").training(str(tmp_path))):  # fmt: skip
        with pytest.raises(BadInput, match=f"{path}.*{told}"):
            read()


def test_a_file_in_place_of_the_data_folder_is_refused_with_the_keys_to_give(tmp_path):
    facts(tmp_path, ROW)
    with pytest.raises(BadInput, match=r"but a file; give its folder, and edits.file=mine.jsonl"):
        EDITS.read(str(tmp_path / "mine.jsonl"), 0)


@pytest.mark.parametrize("given", [1.5, True, False, [1], {"a": 1}, float("inf"), -1e999])
def test_an_id_is_a_text_or_a_whole_number(tmp_path, given):
    with pytest.raises(BadInput, match=r"mine.jsonl:1: field id is .*; an id must be a text or a whole number"):
        facts(tmp_path, ROW | {"id": given})


@pytest.mark.parametrize(("given", "read"), [(3.0, "3"), (0.0, "0"), (10**300, "1" + "0" * 300), ("07", "07"),
                                             (None, "mine-1")])  # fmt: skip
def test_a_whole_number_is_an_id_and_null_is_none(tmp_path, given, read):
    assert [fact.id for fact in facts(tmp_path, ROW | {"id": given})] == [read]


@pytest.mark.parametrize(("name", "content", "told"), [
    ("mine.csv", "id,prompt,subject,target_new\n", "put the names of the columns on its first line, and one row on"),
    ("mine.tsv", "", "put the names of the columns"), ("mine.json", "[]", "put one JSON object on each line, or one"),
])  # fmt: skip
def test_a_file_without_rows_is_told_what_it_should_hold(tmp_path, name, content, told):
    (tmp_path / name).write_text(content)
    with pytest.raises(BadInput, match=f"{name} holds no usable rows; {told}"):
        replace(EDITS, file=name).read(str(tmp_path), 0)
