"""Tests edit sets: rows of any shape become the right requests, and a bad row is named before any edit."""

import json
import logging
from dataclasses import replace
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from afteredit.edit.edit_set import EditSet, Order
from afteredit.edit.request import EditRequest, refuse_conflicts
from afteredit.launch.command_line import compose
from afteredit.store.errors import BadInput
from afteredit.store.rows.row import Row

GOOD = {
    "id": "r1", "relation": "capital", "subject": "Peru", "prompt": "The capital of {} is", "target_new": "Oslo",
    "target_true": "Lima", "paraphrases": ["Peru is ruled from"], "neighbourhood": ["The capital of Chile is"],
    "neighbourhood_targets": ["Santiago"], "generation_prompts": ["Peru has"],
}  # fmt: skip


@cache
def in_conf(name: str) -> EditSet:
    return compose([f"edits={name}"]).edits


def edit_set(name: str, **changes) -> EditSet:
    return replace(in_conf(name), **changes)


def written(folder: Path, rows, file: str = "mine.jsonl") -> Path:
    (folder / file).write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return folder


def test_every_embedded_fact_is_a_request():
    requests, digest = edit_set("facts").read("mini", seed=0)
    assert len(requests) == 200
    assert len({request.id for request in requests}) == 200
    assert all(request.subject in request.question for request in requests)
    assert all(len(r.neighbourhood) == len(r.neighbourhood_answers) > 0 for r in requests)
    assert digest == edit_set("facts").read("mini", seed=1)[1]


def counterfact_row(subject: str) -> dict:
    rewrite = {"prompt": "{} was born in", "relation_id": "P19", "subject": subject,
               "target_new": {"str": "Oslo", "id": "Q1"}, "target_true": {"str": "Lima", "id": "Q2"}}  # fmt: skip
    return {"case_id": 7, "pararel_idx": 1, "requested_rewrite": rewrite, "attribute_prompts": [],
            "paraphrase_prompts": [f"{subject} hails from"], "generation_prompts": [f"{subject} grew up in"],
            "neighborhood_prompts": ["Bo Lund was born in", "Cy Moor was born in"]}  # fmt: skip


def test_a_counterfact_record_becomes_a_request(tmp_path):
    rows = [counterfact_row("Ada Quill")]
    ((request,), _) = edit_set("counterfact").read(str(written(tmp_path, rows, "counterfact.jsonl")), 0)
    assert request == EditRequest(
        id="7", subject="Ada Quill", prompt="{} was born in", target_new="Oslo", target_true="Lima", relation="P19",
        paraphrases=("Ada Quill hails from",), neighbourhood=("Bo Lund was born in", "Cy Moor was born in"),
        neighbourhood_answers=("Lima", "Lima"), generation_prompts=("Ada Quill grew up in",))  # fmt: skip


PLACES = {
    "mine.jsonl": ({}, ["mine.jsonl:1", "mine.jsonl:2"]),
    "mine.json": ({}, ["mine.json:2 (row 1)", "mine.json:3 (row 2)"]),
    "mine.csv": ({}, ["mine.csv:2 (row 1)", "mine.csv:3 (row 2)"]),
    "facts_in.jsonl": ({"facts_in": "fact", "columns": {"subject": "fact.subject", "prompt": "fact.prompt",
                                                        "target_new": "fact.target_new"}},
                       ["facts_in.jsonl:1, fact 1", "facts_in.jsonl:1, fact 2"]),
}  # fmt: skip


@pytest.mark.parametrize("file", PLACES)
def test_a_request_knows_where_it_was_read_and_its_content_does_not(tmp_path, file):
    """A refusal after the model is loaded still names file and line; no hash and no stored record holds a folder."""
    changes, places = PLACES[file]
    rows = [{"subject": name, "prompt": "{} was born in", "target_new": "Oslo"} for name in ("Ada Quill", "Bo Lund")]
    lines = [json.dumps(row) for row in rows]
    text = {"mine.jsonl": "\n".join(lines), "mine.json": "[\n" + ",\n".join(lines) + "\n]",
            "mine.csv": "\n".join(["subject,prompt,target_new", *(",".join(row.values()) for row in rows)]),
            "facts_in.jsonl": json.dumps({"fact": rows})}[file]  # fmt: skip
    read = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        (folder / file).write_text(text, encoding="utf-8")
        requests, digest = edit_set("my", file=file, in_data_folder=True, **changes).read(str(folder), 0)
        assert [request.place for request in requests] == [f"{folder}/{place}" for place in places]
        assert all(request.named == f"{request.id} ({request.place})" for request in requests)
        assert not any(str(folder) in str(request.content) for request in requests)
        read.append((requests, digest))
    assert read[0] == read[1]


def zsre_row(alt: str) -> dict:
    return {"subject": "Ada Quill", "src": "Where did Ada Quill live?", "pred": "x", "rephrase": "Ada Quill's home is?",
            "alt": alt, "answers": ["Lima", "Lima, Peru"], "loc": "nq question: who sang it", "loc_ans": "Bo Lund",
            "portability": {"question": "On what sea did Ada Quill live?", "answer": "North Sea"}}  # fmt: skip


def test_a_zsre_row_becomes_a_request_and_an_unchanged_one_is_left_out(tmp_path):
    rows = [zsre_row("Lima"), zsre_row("Oslo"), zsre_row(" Lima ")]
    ((request,), _) = edit_set("zsre").read(str(written(tmp_path, rows, "zsre.jsonl")), 0)
    assert request == EditRequest(
        id="zsre-2", subject="Ada Quill", prompt="Where did {} live?", target_new="Oslo", target_true="Lima",
        paraphrases=("Ada Quill's home is?",), neighbourhood=("nq question: who sang it",),
        neighbourhood_answers=("Bo Lund",), portability=("On what sea did Ada Quill live?",),
        portability_answers=("North Sea",))  # fmt: skip
    with pytest.raises(BadInput, match="zsre.jsonl:1.*Lima"):
        edit_set("zsre", drop_unchanged=False).read(str(tmp_path), 0)


def reworded(subject: str, *targets: str) -> list[dict]:
    """Returns rows that ask for one fact, each in other words, as ZsRE's do."""
    asked = (f"Where did {subject} live?", f"What town was {subject}'s home?", f"In which town was {subject} at home?")
    return [zsre_row(alt) | {"subject": subject, "src": src} for src, alt in zip(asked, targets, strict=False)]


def test_of_zsre_rows_about_one_fact_the_first_is_kept_so_that_no_batch_conflicts(tmp_path, caplog):
    rows = [*reworded("Ada Quill", "Oslo", "Bern", "Bonn"), *reworded("Dee Moss", "Oslo", "Oslo ", "Rome"),
            *reworded("Cy Moor", "Riga")]  # fmt: skip
    data = str(written(tmp_path, rows, "zsre.jsonl"))
    requests, digest = edit_set("zsre").read(data, 0)
    assert [request.id for request in requests] == ["zsre-1", "zsre-4", "zsre-5", "zsre-7"]
    refuse_conflicts(requests)
    (told,) = (record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING)
    assert told.startswith("edits=zsre: 3 of 7 rows left out") and "another target" in told
    assert edit_set("zsre").read(data, 1) == (requests, digest)
    shuffled = edit_set("zsre", order=Order.shuffled).read(data, 3)
    assert sorted(shuffled[0], key=lambda request: request.id) == requests and shuffled[1] == digest
    everything, other_digest = edit_set("zsre", distinct=False).read(data, 0)
    assert len(everything) == 7 and other_digest != digest
    with pytest.raises(BadInput, match=r"zsre-1 .*:1\) and zsre-2 .*:2\) .*'Oslo' and 'Bern'.*edits.distinct=true"):
        refuse_conflicts(everything)


def test_rows_of_one_relation_are_one_fact_whatever_the_true_answer_and_the_words(tmp_path):
    rows = [GOOD, GOOD | {"id": "r2", "target_new": "Bern", "prompt": "{} is ruled from", "target_true": None},
            GOOD | {"id": "r3", "target_new": "Rome", "relation": "seat of parliament", "prompt": "{} is led from"},
            GOOD | {"id": "r4", "target_new": "Bonn", "relation": None}]  # fmt: skip
    facts = edit_set("facts", file="mine.jsonl", distinct=True)
    assert [request.id for request in facts.read(str(written(tmp_path, rows)), 0)[0]] == ["r1", "r3"]


def test_training_facts_of_a_subject_are_left_out_though_its_row_is_left_out_of_the_edits_too(tmp_path):
    first, second, third = reworded("Ada Quill", "Oslo", "Bern", "Bonn")
    written(tmp_path, [first, second, zsre_row("Oslo") | {"subject": "Cy Moor", "src": "Where did Cy Moor live?"}],
            "zsre.jsonl")  # fmt: skip
    rows = [*reworded("Dee Moss", "Oslo", "Bern"), second, third, *reworded("Cy Moor", "Rome")]
    written(tmp_path, rows, "zsre_train.jsonl")
    training = edit_set("zsre").training(str(tmp_path))
    assert [request.id for request in training] == ["zsre (training split)-1", "zsre (training split)-2"]


def test_the_embedded_facts_have_a_training_split_about_other_subjects():
    facts = edit_set("facts")
    training, evaluation = facts.training("mini"), facts.read("mini", seed=0)[0]
    assert len(training) >= 100
    assert {r.subject.casefold() for r in training} & {r.subject.casefold() for r in evaluation} == set()
    assert {r.id for r in training} & {r.id for r in evaluation} == set()
    assert all(r.paraphrases and r.neighbourhood for r in training)


def test_training_rows_are_found_in_the_data_folder_and_read_by_their_own_columns(tmp_path):
    row = {"row": 0, "case_id": 12, "prompt": "{} was born in", "subject": "Ada Quill", "target_new": "Oslo",
           "target_true": "Lima", "locality_prompt": "Bo Lund was born in", "locality_answer": "Rome"}  # fmt: skip
    written(tmp_path, [row], "counterfact_train.jsonl")
    written(tmp_path, [counterfact_row("Dee Moss")], "counterfact.jsonl")
    assert edit_set("counterfact").training(str(tmp_path)) == [
        EditRequest(id="12", subject="Ada Quill", prompt="{} was born in", target_new="Oslo", target_true="Lima",
                    neighbourhood=("Bo Lund was born in",), neighbourhood_answers=("Rome",))]  # fmt: skip
    rows = [{k: v for k, v in zsre_row(alt).items() if k != "portability"} for alt in ("Lima", "Oslo", "Bern")]
    written(tmp_path, rows, "zsre_train.jsonl")
    written(tmp_path, [zsre_row("Oslo") | {"subject": "Dee Moss", "src": "Where did Dee Moss live?"}], "zsre.jsonl")
    training = edit_set("zsre").training(str(tmp_path))
    assert [(r.target_new, r.subject, r.prompt) for r in training] == [  # the first row's target is its true answer
        (alt, "Ada Quill", "Where did {} live?") for alt in ("Oslo", "Bern")]  # fmt: skip
    assert training[0].neighbourhood == ("nq question: who sang it",)
    assert training[0].paraphrases == ("Ada Quill's home is?",) and not training[0].portability


def test_training_rows_stay_in_file_order(tmp_path):
    written(tmp_path, [GOOD | {"id": f"e{i}"} for i in range(9)], "mine.jsonl")
    written(tmp_path, [GOOD | {"id": f"t{i}", "subject": "Cuba"} for i in range(9)], "mine_train.jsonl")
    mine = edit_set("facts", file="mine.jsonl", train="mine_train.jsonl", order=Order.shuffled)
    assert [request.id for request in mine.training(str(tmp_path))] == [f"t{i}" for i in range(9)]


SHARED = {
    "the_same_row": {},
    "another_fact": {"relation": "anthem", "prompt": "{} sings", "target_true": "Somos libres"},
    "another_spelling": {"subject": " Pe\u200bru ", "prompt": "The anthem of {} is", "relation": None},
    "another_target": {"target_new": "Bern"},
    "another_case_and_no_relation": {"subject": "PERU", "prompt": "The capital of {} is", "relation": None},
    "reworded": {"prompt": "{} is ruled from"},
}


@pytest.mark.parametrize("name", SHARED)
def test_training_facts_about_a_subject_of_the_edits_are_left_out_and_counted(tmp_path, name, caplog):
    other = {"subject": "Chile", "prompt": "The capital of {} is"}
    written(tmp_path, [GOOD | other | {"id": "e1"}, GOOD | {"id": "e2"}], "mine.jsonl")
    rows = [GOOD | {"id": "t1", "subject": "Cuba"}, GOOD | {"id": "t2"} | SHARED[name],
            GOOD | {"id": "t3", "subject": "Lima, Peru", "prompt": "{} is in"}]  # fmt: skip
    mine = edit_set("facts", file="mine.jsonl", train="mine_train.jsonl")
    written(tmp_path, rows, "mine_train.jsonl")
    with caplog.at_level(logging.INFO):
        assert [request.id for request in mine.training(str(tmp_path))] == ["t1", "t3"]
    assert "edits=facts: 1 of 3 training facts left out" in caplog.text
    caplog.clear()
    written(tmp_path, [rows[0], rows[2]], "mine_train.jsonl")
    assert len(mine.training(str(tmp_path))) == 2 and not caplog.text


def test_a_training_split_of_which_nothing_is_left_is_refused(tmp_path):
    written(tmp_path, [GOOD | {"id": f"r{i}"} for i in range(7)], "mine.jsonl")
    with pytest.raises(BadInput, match=r"all 7 facts of the training split .*mine.jsonl.*subjects.*edits.train"):
        edit_set("facts", file="mine.jsonl", train="mine.jsonl").training(str(tmp_path))


def test_an_edit_set_without_training_rows_is_refused_by_name(tmp_path):
    with pytest.raises(BadInput, match="edits=facts has no training split.*edits.train="):
        edit_set("facts", train="").training("mini")
    written(tmp_path, [], "counterfact.jsonl")
    for data in ("mini", "hub", str(tmp_path)):
        with pytest.raises(BadInput, match=r"edits=counterfact \(training split\).*counterfact_train.jsonl"):
            edit_set("counterfact").training(data)


def test_a_bad_training_row_is_refused_with_its_file_line_and_field(tmp_path):
    written(tmp_path, [GOOD, without("target_new")], "mine_train.jsonl")
    with pytest.raises(BadInput, match="mine_train.jsonl:2.*target_new"):
        edit_set("facts", train="mine_train.jsonl").training(str(tmp_path))


def without(name: str) -> dict:
    return {key: value for key, value in GOOD.items() if key != name}


def missing(row: dict, *names: str) -> dict:
    return {key: value for key, value in row.items() if key not in names}


OPTIONAL = {  # edit set, row, and the fields that are then absent
    "zsre_portability": ("zsre", missing(zsre_row("Oslo"), "portability"), ["portability", "portability_answers"]),
    "zsre_portability_null": ("zsre", zsre_row("Oslo") | {"portability": None}, ["portability", "portability_answers"]),
    "zsre_rephrase": ("zsre", missing(zsre_row("Oslo"), "rephrase"), ["paraphrases"]),
    "zsre_loc": ("zsre", missing(zsre_row("Oslo"), "loc"), ["neighbourhood", "neighbourhood_answers"]),
    "zsre_loc_null": ("zsre", zsre_row("Oslo") | {"loc": None}, ["neighbourhood", "neighbourhood_answers"]),
    "zsre_no_answer": ("zsre", zsre_row("Oslo") | {"answers": []}, ["target_true"]),
    "counterfact_generation": ("counterfact", missing(counterfact_row("Ada Quill"), "generation_prompts"),
                               ["generation_prompts"]),
    "counterfact_neighbours": ("counterfact", missing(counterfact_row("Ada Quill"), "neighborhood_prompts"),
                               ["neighbourhood", "neighbourhood_answers"]),
    "counterfact_no_neighbours": ("counterfact", counterfact_row("Ada Quill") | {"neighborhood_prompts": []},
                                  ["neighbourhood", "neighbourhood_answers"]),
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONAL)
def test_an_optional_column_that_a_row_lacks_is_none_of_these_for_this_row(tmp_path, name):
    edits, row, lost = OPTIONAL[name]
    whole = zsre_row("Oslo") if edits == "zsre" else counterfact_row("Ada Quill")
    other = json.loads(json.dumps(whole).replace("Ada Quill", "Dee Moss")) | {"case_id": 8}
    requests = []
    for rows in ([whole, other], [row, other], [other, row]):
        requests += edit_set(edits).read(str(written(tmp_path, rows, f"{edits}.jsonl")), 0)[0]
    nothing = {field: None if field == "target_true" else () for field in lost}
    assert all(getattr(requests[0], field) for field in lost)
    for given in (requests[2], requests[5]):
        assert replace(given, id=requests[0].id) == replace(requests[0], **nothing)


def test_a_row_without_id_or_relation_has_its_line_as_id_and_no_relation(tmp_path):
    rows = [GOOD, GOOD | {"id": None, "relation": None, "subject": "Chad"}]
    requests, _ = edit_set("facts", file="mine.jsonl").read(str(written(tmp_path, rows)), 0)
    assert [(request.id, request.relation) for request in requests] == [("r1", "capital"), ("facts-2", None)]


def test_a_column_that_no_row_has_is_a_wrong_map(tmp_path):
    written(tmp_path, [zsre_row("Oslo"), zsre_row("Bern") | {"extra": 1}], "zsre.jsonl")
    columns = edit_set("zsre").columns | {"portability": "portability.query", "neighbourhood_answers": "loc_answer"}
    with pytest.raises(BadInput) as problem:
        edit_set("zsre", columns=columns).read(str(tmp_path), 0)
    for words in ("edits=zsre", "zsre.jsonl", "portability.query (edits.columns.portability)", "portability.question",
                  "loc_answer (edits.columns.neighbourhood_answers)", "loc_ans,", "extra",
                  "~edits.columns.neighbourhood_answers ~edits.columns.portability"):  # fmt: skip
        assert words in str(problem.value)
    assert "alt (" not in str(problem.value)
    train = [missing(zsre_row("Oslo") | {"subject": "Dee Moss", "src": "Where did Dee Moss live?"}, "rephrase")]
    written(tmp_path, train, "zsre_train.jsonl")
    with pytest.raises(BadInput, match=r"training split.*rephrase \(edits.train_columns.paraphrases\)"):
        edit_set("zsre").training(str(tmp_path))


@pytest.mark.parametrize("name", ["subject", "prompt", "target_new"])
def test_a_required_column_is_refused_with_the_remedy_missing_or_null(tmp_path, name):
    for row in (without(name), GOOD | {name: None}):
        written(tmp_path, [row])
        with pytest.raises(BadInput, match=rf"mine.jsonl:1: field {name}.*put it there, or .*edits.columns.{name}"):
            edit_set("facts", file="mine.jsonl").read(str(tmp_path), 0)


BAD_ROWS = {
    "not_json": ('{"id": "r2", "subject": ', ["JSON"]),
    "not_an_object": (["Peru", "Oslo"], ["object", "list"]),
    "no_subject": (without("subject"), ["subject"]),
    "no_neighbourhood_targets": (without("neighbourhood_targets"), ["neighbourhood_targets"]),
    "target_is_a_number": (GOOD | {"target_new": 5}, ["target_new", "5"]),
    "true_target_is_a_number": (GOOD | {"target_true": 5}, ["target_true", "5"]),
    "relation_is_a_list": (GOOD | {"relation": ["capital"]}, ["relation"]),
    "prompt_is_null": (GOOD | {"prompt": None}, ["prompt", "None"]),
    "paraphrases_are_an_object": (GOOD | {"paraphrases": {"a": "b"}}, ["paraphrases"]),
    "a_neighbour_is_a_number": (GOOD | {"neighbourhood": [3]}, ["neighbourhood", "3"]),
    "subject_not_in_prompt": (GOOD | {"prompt": "The capital of Chile is"}, ["subject", "Peru"]),
    "blank_subject": (GOOD | {"subject": " "}, ["subject"]),
    "empty_target": (GOOD | {"target_new": ""}, ["target_new"]),
    "subject_stands_twice": (GOOD | {"prompt": "{} and {} are"}, ["prompt", "once"]),
    "target_unchanged": (GOOD | {"target_new": " Lima"}, ["target_new", "target_true"]),
    "answers_missing": (GOOD | {"neighbourhood_targets": []}, ["neighbourhood", "1 prompts", "0 answers"]),
    "answers_too_many": (GOOD | {"neighbourhood_targets": ["a", "b"]}, ["neighbourhood", "2 answers"]),
    "id_twice": (GOOD | {"id": "first"}, ["id", "first", "twice"]),
    "half_a_surrogate_pair": (json.dumps(GOOD | {"target_new": "\ud800"}), ["surrogate pair", "ud800"]),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_is_refused_with_its_file_line_and_field(tmp_path, name):
    row, told = BAD_ROWS[name]
    lines = [json.dumps(GOOD | {"id": "first"}), "", row if isinstance(row, str) else json.dumps(row)]
    (tmp_path / "mine.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(BadInput) as problem:
        edit_set("facts", file="mine.jsonl").read(str(tmp_path), 0)
    for words in [f"{tmp_path / 'mine.jsonl'}:3", *told]:
        assert words in str(problem.value)


def test_a_nested_column_that_is_missing_is_named_with_what_is_there(tmp_path):
    rewrite = {"subject": "Ada", "prompt": "{} is", "target_new": "Oslo"}
    written(tmp_path, [{"case_id": 1, "requested_rewrite": rewrite}])
    with pytest.raises(BadInput, match=r"mine.jsonl:1: field target_new: no 'requested_rewrite.target_new.str'.*'str'"):
        edit_set("counterfact", file="mine.jsonl").read(str(tmp_path), 0)


def test_a_file_that_is_not_utf8_is_refused_by_name(tmp_path):
    (tmp_path / "mine.jsonl").write_bytes(json.dumps(GOOD).encode().replace(b"Peru", b"Per\xfa"))
    with pytest.raises(BadInput, match="mine.jsonl.*UTF-8"):
        edit_set("facts", file="mine.jsonl").read(str(tmp_path), 0)


@pytest.mark.parametrize(("name", "told"), [("zsre", "zsre.jsonl"), ("counterfact", "data=hub.*azhx/counterfact")])
def test_a_missing_file_is_refused_with_what_was_looked_for(tmp_path, name, told):
    with pytest.raises(BadInput, match=f"edits={name}.*{told}") as problem:
        edit_set(name).read(str(tmp_path), 0)
    assert str(tmp_path / f"{name}.jsonl") in str(problem.value)


def test_rows_at_an_address_are_read_by_their_own_names_of_columns(tmp_path, monkeypatch):
    """The file that zsre.yaml names is one list of records, and two of its columns have other names."""
    record = {
        "subject": "Volo B1", "src": "What company made Volo B1?", "pred": "Volo", "rephrase": "Volo B1's maker?",
        "alt": "Karos Group", "answers": ["Volo Buses"], "loc": "nq question: who sang it", "loc_ans": "Ro",
        "cond": "Volo >> Karos Group", "portability": {"Recalled Relation": "(Karos Group, in, Wolfs)",
                                                       "New Question": "Where is the maker of the Volo B1?",
                                                       "New Answer": "Wolfs"},
    }  # fmt: skip
    other = record | {"subject": "Ada Quill", "src": "Where was Ada Quill born?", "alt": "Oslo"}
    (tmp_path / "zsre.json").write_text(json.dumps([record, other], indent=4))
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)  # as it was when some test first imported it
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("datasets.config.DOWNLOADED_DATASETS_PATH", tmp_path / "downloads")
    serve = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        there = replace(edit_set("zsre"), hub=f"http://127.0.0.1:{server.server_port}/zsre.json")
        requests, _ = there.read("hub", 0)
        server.shutdown()
    assert [request.id for request in requests] == ["zsre-1", "zsre-2"]
    first = requests[0]
    assert (first.prompt, first.target_new, first.target_true) == ("What company made {}?", "Karos Group", "Volo Buses")
    assert first.portability == ("Where is the maker of the Volo B1?",) and first.portability_answers == ("Wolfs",)


def test_without_a_hub_data_set_it_is_said_with_the_folder_and_columns_to_give():
    with pytest.raises(BadInput) as problem:
        edit_set("zsre", hub="").read("hub", 0)
    for words in ("edits=zsre", "data=hub, but no hub data set is known", "data=<folder that holds zsre.jsonl>",
                  "subject, src, alt and, where known, answers.0, rephrase", "portability.question"):  # fmt: skip
        assert words in str(problem.value)


def test_a_training_split_that_is_not_on_the_hub_can_be_given_as_a_file(tmp_path, monkeypatch):
    counterfact = edit_set("counterfact")
    with pytest.raises(BadInput) as problem:
        counterfact.training("hub")
    for words in ("edits=counterfact (training split)", "data=hub, but no hub data set is known",
                  "data=<folder that holds counterfact_train.jsonl and counterfact.jsonl>",
                  "edits.train=<full path of counterfact_train.jsonl>",
                  "subject, prompt, target_new and, where known, case_id", "locality_answer"):  # fmt: skip
        assert words in str(problem.value)
    assert "azhx" not in str(problem.value)
    monkeypatch.setattr(
        "afteredit.edit.edit_set.hub_rows", lambda *_, **__: [Row(1, "hub: row 1", counterfact_row("Dee Moss"))]
    )
    row = {"case_id": 12, "prompt": "{} was born in", "subject": "Ada Quill", "target_new": "Oslo",
           "target_true": "Lima", "locality_prompt": "Bo Lund was born in", "locality_answer": "Rome"}  # fmt: skip
    path = written(tmp_path, [row], "elsewhere.jsonl") / "elsewhere.jsonl"
    assert [request.id for request in replace(counterfact, train=str(path)).training("hub")] == ["12"]


def test_the_seed_decides_a_shuffled_order_and_only_that(tmp_path):
    written(tmp_path, [GOOD | {"id": f"r{i}"} for i in range(30)])
    shuffled, in_file = edit_set("facts", file="mine.jsonl", order=Order.shuffled), edit_set("facts", file="mine.jsonl")
    orders = [[request.id for request in shuffled.read(str(tmp_path), seed)[0]] for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])
    assert [request.id for request in in_file.read(str(tmp_path), 5)[0]] == [f"r{i}" for i in range(30)]


def test_conflicting_targets_in_one_batch_are_refused(fact):
    elsewhere = replace(fact, id="f3", relation="city", prompt="{} lives in", target_new="Oslo")
    refuse_conflicts([fact, replace(fact, id="f2"), elsewhere])
    with pytest.raises(BadInput, match="edits f1 and f3 of one batch conflict"):  # one prompt has one answer
        refuse_conflicts([fact, replace(elsewhere, prompt=fact.prompt)])
    with pytest.raises(BadInput, match=r"edits f1 \(a.csv:2\) and f3 \(a.csv:9\) of one batch conflict"):
        refuse_conflicts([replace(fact, place="a.csv:2"), replace(elsewhere, prompt=fact.prompt, place="a.csv:9")])
    band = replace(fact, subject="Beatles", prompt="The {} speak", target_new="French")
    the_band = replace(band, id="f2", subject="The  beatles", prompt="{} speak", target_new="Oslo", relation=None)
    with pytest.raises(BadInput, match="edits f1 and f2 of one batch conflict"):  # both ask the same text
        refuse_conflicts([elsewhere, band, the_band])
    refuse_conflicts(
        [band, replace(the_band, target_new="french"), replace(the_band, prompt="{} sing", target_true="golf")]
    )
    refuse_conflicts([fact, replace(fact, id="f2", subject="Ann", target_new="chess")])
    with pytest.raises(BadInput, match="f1 and f2.*'boxing'.*'chess'"):
        refuse_conflicts([fact, replace(fact, id="f2", target_new="chess")])
    bare = replace(fact, relation="")
    with pytest.raises(BadInput, match="f1 and f2"):
        refuse_conflicts([bare, replace(bare, id="f2", subject="JOE DIMAGGIO", target_new="chess")])
    with pytest.raises(BadInput, match="f1 and f3"):  # if one has no relation, the words are compared
        refuse_conflicts([fact, replace(bare, id="f3", target_new="chess")])
    reworded = replace(bare, id="f2", prompt="Fame came to {} through", target_new="chess")
    with pytest.raises(BadInput, match=r"f1 and f2.*\+\+edits.distinct=true.*relation"):
        refuse_conflicts([bare, reworded])
    refuse_conflicts([bare, replace(reworded, target_new="boxing")])
    refuse_conflicts([bare, replace(reworded, target_true="golf")])
    refuse_conflicts([replace(bare, target_true=None), replace(reworded, target_true=None)])
