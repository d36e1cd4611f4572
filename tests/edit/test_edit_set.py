"""Edit sets: rows of any shape become the right requests, and a bad row is named before anything is edited."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from afteredit.edit.edit_set import EditSet, Order
from afteredit.edit.request import BadInput, EditRequest, refuse_conflicts

CONF = Path(__file__).resolve().parents[2] / "conf" / "edits"
GOOD = {
    "id": "r1", "relation": "capital", "subject": "Peru", "prompt": "The capital of {} is", "target_new": "Oslo",
    "target_true": "Lima", "paraphrases": ["Peru is ruled from"], "neighbourhood": ["The capital of Chile is"],
    "neighbourhood_targets": ["Santiago"], "generation_prompts": ["Peru has"],
}  # fmt: skip


def edit_set(name: str, **changes) -> EditSet:
    merged = OmegaConf.merge(OmegaConf.structured(EditSet), OmegaConf.load(CONF / f"{name}.yaml"))
    return replace(OmegaConf.to_object(merged), **changes)


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
    "another_target": {"target_new": "Bern"},
    "another_case_and_no_relation": {"subject": "PERU", "prompt": "The capital of {} is", "relation": None},
    "reworded": {"prompt": "{} is ruled from"},
}


@pytest.mark.parametrize("name", SHARED)
def test_training_rows_that_are_evaluation_rows_too_are_refused_by_name(tmp_path, name):
    other = {"subject": "Chile", "prompt": "The capital of {} is"}
    written(tmp_path, [GOOD | other | {"id": "e1"}, GOOD | {"id": "e2"}], "mine.jsonl")
    rows = [GOOD | {"id": "t1", "subject": "Cuba"}, GOOD | {"id": "t2"} | SHARED[name]]
    rows += [GOOD | {"id": "t3", "relation": "anthem", "prompt": "{} sings"}]
    mine = edit_set("facts", file="mine.jsonl", train="mine_train.jsonl")
    written(tmp_path, [rows[0], rows[2]], "mine_train.jsonl")
    assert [request.id for request in mine.training(str(tmp_path))] == ["t1", "t3"]
    written(tmp_path, rows, "mine_train.jsonl")
    with pytest.raises(BadInput) as problem:
        mine.training(str(tmp_path))
    for words in ("edits=facts: 1 rows", str(tmp_path / "mine_train.jsonl"), "t2 (", "mine.jsonl", "edits.train"):
        assert words in str(problem.value)
    assert "t1" not in str(problem.value)


def test_of_many_shared_rows_the_first_are_named(tmp_path):
    written(tmp_path, [GOOD | {"id": f"r{i}"} for i in range(7)], "mine.jsonl")
    with pytest.raises(BadInput, match=r"7 rows of the training split .*mine.jsonl.* r0 .*, r4 \([^,]*, …; take"):
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
    "half_a_surrogate_pair": (json.dumps(GOOD | {"target_new": "\ud800"}), ["not JSON", "surrogates"]),
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


def test_the_seed_decides_a_shuffled_order_and_only_that(tmp_path):
    written(tmp_path, [GOOD | {"id": f"r{i}"} for i in range(30)])
    shuffled, in_file = edit_set("facts", file="mine.jsonl", order=Order.shuffled), edit_set("facts", file="mine.jsonl")
    orders = [[request.id for request in shuffled.read(str(tmp_path), seed)[0]] for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])
    assert [request.id for request in in_file.read(str(tmp_path), 5)[0]] == [f"r{i}" for i in range(30)]


def test_conflicting_targets_in_one_batch_are_refused(fact):
    refuse_conflicts([fact, replace(fact, id="f2"), replace(fact, id="f3", relation="city", target_new="Oslo")])
    refuse_conflicts([fact, replace(fact, id="f2", subject="Ann", target_new="chess")])
    with pytest.raises(BadInput, match="f1 and f2.*'boxing'.*'chess'"):
        refuse_conflicts([fact, replace(fact, id="f2", target_new="chess")])
    bare = replace(fact, relation="")
    with pytest.raises(BadInput, match="f1 and f2"):
        refuse_conflicts([bare, replace(bare, id="f2", subject="JOE DIMAGGIO", target_new="chess")])
