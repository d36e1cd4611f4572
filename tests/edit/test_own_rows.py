"""edits=my: a user's own file, found where the command is run, with columns of usual names or named ones."""

import json
import logging

import pandas as pd
import pytest

from afteredit.edit.edit_set import EditSet
from afteredit.edit.request import EditRequest
from afteredit.launch.command_line import compose
from afteredit.store.errors import BadInput

TABLE = """Subject,Target New,Prompt,ground-truth,rephrase,loc
Peru,Oslo,The capital of {} is,Lima,Peru is ruled from,The capital of Chile is
"""
FACT = EditRequest("my-1", "Peru", "The capital of {} is", "Oslo", "Lima", paraphrases=("Peru is ruled from",),
                   neighbourhood=("The capital of Chile is",), neighbourhood_answers=("",))  # fmt: skip
NESTED = {"case_id": 7, "requested_rewrite": {"subject": "Peru", "prompt": "The capital of {} is", "target_new":
          {"str": "Oslo"}, "target_true": {"str": "Lima"}}, "paraphrase_prompts": ["Peru is ruled from"]}  # fmt: skip


def my(*overrides: str) -> EditSet:
    return compose(["edits=my", *overrides]).edits


def test_columns_are_found_by_their_usual_names_and_the_log_says_which(tmp_path, monkeypatch, caplog):
    (tmp_path / "facts.csv").write_text(TABLE)
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO, "afteredit")
    assert my("edits.file=facts.csv").read("mini", 0)[0] == [FACT]
    assert "subject ← Subject, prompt ← Prompt, target_new ← Target New, target_true ← ground-truth" in caplog.text


def test_a_file_of_the_name_of_an_embedded_one_is_the_users(tmp_path, monkeypatch):
    (tmp_path / "facts.jsonl").write_text(json.dumps(NESTED))
    monkeypatch.chdir(tmp_path)
    (fact,) = my("edits.file=facts.jsonl").read("mini", 0)[0]
    assert (fact.id, fact.subject, fact.target_true, fact.paraphrases) == ("7", "Peru", "Lima", FACT.paraphrases)
    monkeypatch.chdir(tmp_path.parent)
    with pytest.raises(BadInput, match=f"looked for {tmp_path.parent}/facts.jsonl.*edits.file=<full path"):
        my("edits.file=facts.jsonl").read("mini", 0)


def test_named_columns_go_before_usual_ones(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("who,prompt,src,new answer\nPeru,The capital of {} is,{} is,Oslo\n")
    (fact,) = my(f"edits.file={path}", "edits.columns.subject=who").read("mini", 0)[0]  # prompt: the field's own name
    assert (fact.subject, fact.question, fact.target_new) == ("Peru", "The capital of Peru is", "Oslo")
    (fact,) = my(f"edits.file={path}", "edits.columns.subject=who", "edits.columns.prompt=src").read("mini", 0)[0]
    assert fact.question == "Peru is"


@pytest.mark.parametrize(("head", "named"), [
    ("who,prompt,answer", "no column has a usual name of subject, target_new; its columns: who, prompt, answer"),
    ("subject,src,question,alt", r"prompt may be in src or question; name its column: edits.columns.prompt=<column>"),
])  # fmt: skip
def test_columns_that_cannot_be_told_are_to_be_named(tmp_path, head, named):
    (tmp_path / "rows.csv").write_text(f"{head}\n{','.join('abcd'[: head.count(',') + 1])}\n")
    with pytest.raises(BadInput, match=named):
        my(f"edits.file={tmp_path}/rows.csv").read("mini", 0)


def test_a_file_of_the_working_folder_never_gives_way_to_an_embedded_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    compose(["edits.file=facts.jsonl"])  # none there: the embedded one is meant
    (tmp_path / "facts.jsonl").write_text('{"subject": "Peru", "prompt": "{} is ruled from", "target_new": "Oslo"}')
    for given in (["edits.file=facts.jsonl"], ["edits=facts", "edits.file=./facts.jsonl"]):
        with pytest.raises(BadInput, match="is the embedded file of edits=facts .* say edits=my edits.file="):
            compose(given)
    assert compose(["edits=my", "edits.file=facts.jsonl"]).edits.read("mini", 0)[0][0].target_new == "Oslo"
    compose(["edits.file=facts.jsonl", f"data={tmp_path}"])
    compose(["edits=facts"])


def test_rows_without_names_are_told_what_they_are(tmp_path):
    """pandas: to_json(orient="values")."""
    (tmp_path / "rows.json").write_text('[["Peru", "{} is ruled from", "Oslo"]]')
    with pytest.raises(BadInput, match=r"its first row is \['Peru', .*names no column; give one object for each row"):
        my(f"edits.file={tmp_path}/rows.json").read("mini", 0)


@pytest.mark.parametrize(("ending", "mark", "told"), [("csv", ";", "','"), ("csv", "\t", "','"), ("tsv", ",", r"'\t'")])
def test_a_table_whose_cells_end_in_another_mark_is_refused_by_it(tmp_path, ending, mark, told):
    """As spreadsheets in Europe write CSV."""
    path = tmp_path / f"rows.{ending}"
    path.write_text(f"subject{mark}prompt{mark}target_new\nPeru{mark}The capital of {{}}, it is said, is{mark}Oslo\n")
    with pytest.raises(BadInput, match="is one cell, which holds") as problem:
        my(f"edits.file={path}").read("mini", 0)
    assert repr(mark) in str(problem.value) and f"save the table with {told} between" in str(problem.value)


@pytest.mark.parametrize("name", ["rows.txt", "rows.tab", "rows"])
def test_a_table_whose_name_says_no_table_is_told_how_it_is_named(tmp_path, name):
    """Excel's "Unicode text" is one."""
    path = tmp_path / name
    path.write_text("subject\tprompt\ttarget_new\nPeru\t{} is\tOslo\n", encoding="utf-16")
    with pytest.raises(BadInput, match=r"the name of a table ends in .csv .* or .tsv"):
        my(f"edits.file={path}").read("mini", 0)


@pytest.mark.parametrize("mark", [";", ",", "\t"])
def test_a_first_line_for_excel_is_named(tmp_path, mark):
    path = tmp_path / "rows.csv"
    path.write_text(f"sep={mark}\nsubject{mark}prompt{mark}target_new\nPeru{mark}{{}} is{mark}Oslo\n")
    with pytest.raises(BadInput, match=r"rows.csv:1: sep=… is for Excel alone; take this line out"):
        my(f"edits.file={path}").read("mini", 0)


@pytest.mark.parametrize("edits", ["my", "facts"])
@pytest.mark.parametrize("written", [
    lambda table: table.to_json(), lambda table: table.to_json(indent=1),
    lambda table: json.dumps(table.to_dict("list")), lambda table: table.to_json(orient="split"),
    lambda table: table.to_json(orient="table"),
])  # fmt: skip
def test_a_table_that_is_written_by_columns_is_refused_with_its_shape(tmp_path, written, edits):
    row = {"subject": "Peru", "prompt": "The capital of {} is", "target_new": "Oslo", "neighbourhood": ["Chile is"]}
    table, path = pd.DataFrame([row, row | {"subject": "Chile"}]), tmp_path / "rows.json"
    path.write_text(written(table))
    with pytest.raises(BadInput, match=r'holds one JSON object.*(subject|data).*orient="records"'):
        compose([f"edits={edits}", f"edits.file={path}"]).edits.read("mini", 0)
    path.write_text(table.to_json(orient="records"))
    subjects = [fact.subject for fact in my(f"edits.file={path}").read("mini", 0)[0]]
    assert subjects == ["Peru", "Chile"]


def test_a_fact_beside_a_file_is_refused():
    with pytest.raises(BadInput, match=r"edits.fact and edits.file=mine.jsonl are both given.*leave one out"):
        my("edits.file=mine.jsonl", "edits.fact={Peru} is ruled from → Oslo")


def test_without_a_file_the_rows_are_asked_for():
    with pytest.raises(BadInput, match=r"edits=my names no rows; give edits.file=.* edits.fact="):
        my().read("mini", 0)
