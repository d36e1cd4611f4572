"""Edit sets as their authors publish them: rows of their form become the facts that they mean."""

import json
import logging
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from afteredit.edit.edit_set import EditSet, OnBadRow, Order
from afteredit.edit.request import EditRequest, by_row, without_split_rows
from afteredit.edit.subject_place import SubjectPlace
from afteredit.launch.command_line import compose
from afteredit.store.errors import BadInput

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
READABLE = {"counterfact_3k": 1996, "zsre_3k": 1773, "wikibigedit": 2000, "qaedit": 700, "mquake": 303}
published = pytest.mark.skipif(not (SHARED / "published").is_dir(), reason=f"{SHARED}/published is not there")


@cache
def in_conf(name: str) -> EditSet:
    return compose([f"edits={name}"]).edits


def edit_set(name: str, **changes) -> EditSet:
    return replace(in_conf(name), **changes)


def read(name: str, folder: Path, rows: list[dict], **changes) -> list[EditRequest]:
    edits = edit_set(name, **changes)
    (folder / "published").mkdir(exist_ok=True)
    (folder / edits.file).write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return edits.read(str(folder), 3)[0]


COUNTERFACT = {
    "case_id": 12, "prompt": "Ada Quill was born in", "target_new": "Oslo", "subject": "Ada Quill",
    "ground_truth": "Lima", "rephrase_prompt": "He left.\n( 9.) Ada Quill hails from",
    "locality_prompt": "Bo Lund was born in", "locality_ground_truth": "Rome",
}  # fmt: skip
ZSRE = {
    "subject": "Volo B1", "src": "Who made Volo B1?", "pred": "x", "rephrase": "Volo B1's maker?", "alt": "Bo Lund",
    "answers": ["Cy Moor", "C. Moor"], "loc": "nq question: who sang it", "loc_ans": "Dee", "cond": "x >> y || z",
}  # fmt: skip
WIKIBIGEDIT = {
    "prompt": "In what county is Quill Kirk?", "target_new": "Fife", "subject": "Quill Kirk",
    "rephrase_prompt": "Which county holds Quill Kirk?", "locality_prompt": "In what county is Moor Kirk?",
    "locality_ground_truth": "Angus",
}  # fmt: skip
QAEDIT = {
    "id": 7, "source": "NQ", "prompt": "who has the most caps of oslo?", "target": "Bo Lund",
    "subject": "most caps of oslo", "rephrase": "Whose caps are most?",
    "locality": [{"loc": "who sang it", "loc_ans": "Dee Moss"}, {"loc": "when did it end", "loc_ans": "1971"}],
}  # fmt: skip


def fact_of_mquake(subject: str, target: str, relation: str = "P27") -> dict:
    return {"prompt": "{} is a citizen of", "relation_id": relation, "target_new": {"str": target, "id": "Q1"},
            "target_true": {"str": "Peru", "id": "Q2"}, "subject": subject,
            "question": f"Of what country is {subject} a citizen?"}  # fmt: skip


def mquake(case: int, *facts: dict) -> dict:
    return {"case_id": case, "requested_rewrite": list(facts), "questions": [f"Who rules {case}?", f"Whose is {case}?"],
            "answer": "Ada", "answer_alias": [], "new_answer": "Bo Lund", "new_answer_alias": ["B. Lund", "Lund", ""],
            "single_hops": [], "new_single_hops": [], "orig": {"triples": []}}  # fmt: skip


def test_a_row_of_each_set_becomes_the_fact_that_it_means(tmp_path):
    assert read("counterfact_3k", tmp_path, [COUNTERFACT]) == [EditRequest(
        id="12", subject="Ada Quill", prompt="{} was born in", target_new="Oslo", target_true="Lima",
        paraphrases=("He left.\n( 9.) Ada Quill hails from",), neighbourhood=("Bo Lund was born in",),
        neighbourhood_answers=("Rome",))]  # fmt: skip
    assert read("zsre_3k", tmp_path, [ZSRE | {"alt": "cy  moor"}, ZSRE]) == [EditRequest(
        id="zsre_3k-2", subject="Volo B1", prompt="Who made {}?", target_new="Bo Lund", target_true="Cy Moor",
        paraphrases=("Volo B1's maker?",), neighbourhood=("nq question: who sang it",),
        neighbourhood_answers=("Dee",))]  # fmt: skip
    assert read("wikibigedit", tmp_path, [WIKIBIGEDIT]) == [EditRequest(
        id="wikibigedit-1", subject="Quill Kirk", prompt="In what county is {}?", target_new="Fife",
        paraphrases=("Which county holds Quill Kirk?",), neighbourhood=("In what county is Moor Kirk?",),
        neighbourhood_answers=("Angus",))]  # fmt: skip
    assert read("qaedit", tmp_path, [QAEDIT]) == [EditRequest(
        id="qaedit-1", subject="most caps of oslo", prompt="who has the {}?", target_new="Bo Lund",
        paraphrases=("Whose caps are most?",), neighbourhood=("who sang it", "when did it end"),
        neighbourhood_answers=("Dee Moss", "1971"))]  # fmt: skip


def test_rows_without_true_answers_say_what_leaves_them_out(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        read("counterfact_3k", tmp_path, [COUNTERFACT])
        assert not caplog.text
        read("counterfact_3k", tmp_path, [COUNTERFACT, COUNTERFACT | {"case_id": 13, "ground_truth": None}])
    assert "1 of 2 facts have no true answer" in caplog.text and "prob/efficacy" in caplog.text


def test_the_edit_set_says_which_place_of_a_subject_counts(tmp_path):
    row = QAEDIT | {"subject": "pan", "prompt": "Pans are for the pan. What is a pan ?"}
    assert read("qaedit", tmp_path, [row])[0].prompt == "Pans are for the pan. What is a {} ?"
    assert read("qaedit", tmp_path, [row], subject_place=SubjectPlace.first)[0].prompt == (
        "Pans are for the {}. What is a pan ?")  # fmt: skip
    with pytest.raises(BadInput, match=r"qaedit_1k.json:2 \(row 1\): .*'pan' stands 2 times.*edits.subject_place"):
        read("qaedit", tmp_path, [row], subject_place=SubjectPlace.only)


def test_a_star_leads_into_each_item_of_a_list_and_refuses_items_that_do_not_have_it(tmp_path):
    assert read("qaedit", tmp_path, [QAEDIT | {"locality": []}, QAEDIT])[0].neighbourhood == ()
    for broken in ([{"loc": "who sang it"}], [{"loc": "who", "loc_ans": None}], [{"loc": None, "loc_ans": "x"}],
                   [{"loc": "", "loc_ans": "x"}], ["who"]):  # fmt: skip
        with pytest.raises(BadInput, match=r"qaedit_1k.json:\d+ \(row 2\): .*(locality|neighbourhood)"):
            read("qaedit", tmp_path, [QAEDIT, QAEDIT | {"locality": broken}])
    with pytest.raises(BadInput, match=r"locality\.\*\.answer \(edits.columns.neighbourhood_answers\)"):
        columns = edit_set("qaedit").columns | {"neighbourhood_answers": "locality.*.answer"}
        read("qaedit", tmp_path, [QAEDIT], columns=columns)


def test_a_row_of_several_facts_becomes_that_many_and_the_last_asks_what_follows(tmp_path):
    two = mquake(6, fact_of_mquake("Ada Quill", "Cuba"), fact_of_mquake("Dee Moss", "Chad", "P6"))
    first, second, third = read("mquake", tmp_path, [two, mquake(8, fact_of_mquake("Cy Moor", "Fiji"))])
    assert first == EditRequest(
        id="6-1", subject="Ada Quill", prompt="{} is a citizen of", target_new="Cuba", target_true="Peru",
        relation="P27", paraphrases=("Of what country is Ada Quill a citizen?",), row="6")  # fmt: skip
    assert second == EditRequest(
        id="6-2", subject="Dee Moss", prompt="{} is a citizen of", target_new="Chad", target_true="Peru", relation="P6",
        paraphrases=("Of what country is Dee Moss a citizen?",), row="6", portability=("Who rules 6?", "Whose is 6?"),
        portability_answers=("Bo Lund",) * 2, portability_aliases=(("B. Lund", "Lund"),) * 2)  # fmt: skip
    assert (third.id, third.row, third.portability) == ("8-1", "8", ("Who rules 8?", "Whose is 8?"))


def many(n: int) -> list[dict]:
    return [mquake(i, *(fact_of_mquake(f"Ada{i}x{k}", "Cuba") for k in range(1 + i % 3))) for i in range(n)]


def test_the_facts_of_a_row_stay_together_and_in_order_when_rows_are_shuffled(tmp_path):
    in_order = read("mquake", tmp_path, many(30))
    shuffled = read("mquake", tmp_path, many(30), order=Order.shuffled)
    assert shuffled != in_order and sorted(r.id for r in shuffled) == sorted(r.id for r in in_order)
    expected = {str(i): [f"{i}-{k}" for k in range(1, 2 + i % 3)] for i in range(30)}
    assert [[r.id for r in row] for row in by_row(shuffled)] == [expected[row[0].row] for row in by_row(shuffled)]
    assert len(by_row(shuffled)) == 30


def test_a_row_with_one_bad_fact_is_left_out_whole(tmp_path):
    bad = mquake(6, fact_of_mquake("Ada Quill", "Cuba"), fact_of_mquake("Dee Moss", ""))
    with pytest.raises(BadInput, match=r"mquake_cf.json:2 \(row 1\), fact 2: .*target_new"):
        read("mquake", tmp_path, [bad])
    good = mquake(8, fact_of_mquake("Cy Moor", "Fiji"))
    assert [r.id for r in read("mquake", tmp_path, [bad, good], on_bad_row=OnBadRow.skip)] == ["8-1"]
    other = mquake(9, fact_of_mquake("Ed Fox", "Mali"), fact_of_mquake("Cy Moor", "Chad"))
    assert [r.id for r in read("mquake", tmp_path, [good, other])] == ["8-1"]  # distinct
    assert len(read("mquake", tmp_path, [good, other], distinct=False)) == 3
    unchanged = mquake(7, fact_of_mquake("Ada Quill", "Cuba"), fact_of_mquake("Dee Moss", "Peru"))
    (kept,) = read("mquake", tmp_path, [unchanged], drop_unchanged=True)
    assert kept.id == "7-1" and kept.portability == ("Who rules 7?", "Whose is 7?")


@pytest.mark.parametrize("facts", [None, [], "x", {"a": 1}])
def test_a_row_that_holds_no_list_of_facts_is_refused_with_the_key(tmp_path, facts):
    with pytest.raises(BadInput, match=r"mquake_cf.json:2 \(row 1\): field requested_rewrite .*edits.facts_in"):
        read("mquake", tmp_path, [mquake(6) | {"requested_rewrite": facts}])


def test_aliases_may_be_one_list_for_each_question(tmp_path):
    row = mquake(6, fact_of_mquake("Ada Quill", "Cuba")) | {"new_answer": ["Bo", "Cy"]}
    mixed = [["B."], "C."]
    for given, aliases in (([["B."], []], (("B.",), ())), (mixed, (("B.",), ("C.",))), (["B."], (("B.",),) * 2),
                           ("B.", (("B.",),) * 2), (None, ()), ([], ((), ()))):  # fmt: skip
        (fact,) = read("mquake", tmp_path, [row | {"new_answer_alias": given}])
        assert fact.portability_answers == ("Bo", "Cy") and fact.portability_aliases == aliases
    for given, told in (([["B."]] * 3, "3 lists of aliases"), ([1], "list of texts"), ([[1]], "list of texts")):
        with pytest.raises(BadInput, match=rf"\(row 1\).*{told}"):
            read("mquake", tmp_path, [row | {"new_answer_alias": given}])


def test_every_set_has_training_facts_about_other_subjects_than_its_own(tmp_path, caplog):
    rows = {"counterfact_3k": COUNTERFACT, "wikibigedit": WIKIBIGEDIT, "qaedit": QAEDIT,
            "mquake": mquake(6, fact_of_mquake("Ada Quill", "Cuba"), fact_of_mquake("Dee Moss", "Chad"))}  # fmt: skip
    subjects = ["ada  quill", "QUILL KIRK", "Most caps of Oslo", "dee moss", "Volo B1", "Ed Fox"]
    training = [{"row": i, "case_id": i, "prompt": "{} is in", "subject": subject, "target_new": "Oslo",
                 "target_true": "Lima", "locality_prompt": "Rome is in", "locality_answer": "Italy"}
                for i, subject in enumerate(subjects)]  # fmt: skip
    (tmp_path / "counterfact_train.jsonl").write_text("\n".join(map(json.dumps, training)))
    left_out = {"counterfact_3k": {0}, "wikibigedit": {1}, "qaedit": {2}, "mquake": {0, 3}}
    for name, row in rows.items():
        read(name, tmp_path, [row])
        with caplog.at_level(logging.INFO):
            facts = edit_set(name).training(str(tmp_path))
        assert [fact.id for fact in facts] == [str(i) for i in range(6) if i not in left_out[name]]
        assert f"edits={name}: {len(left_out[name])} of 6 training facts left out" in caplog.text
        assert facts[-1].neighbourhood_answers == ("Italy",) and facts[-1].row is None
    zsre = [ZSRE | {"subject": s, "src": f"Who made {s}?"} for s in ("volo b1", "Ed Fox")]
    (tmp_path / "zsre_train.jsonl").write_text("\n".join(map(json.dumps, zsre)))
    read("zsre_3k", tmp_path, [ZSRE])
    assert [fact.subject for fact in edit_set("zsre_3k").training(str(tmp_path))] == ["Ed Fox"]


def test_what_follows_from_a_row_is_not_asked_where_no_batch_holds_it_whole(tmp_path):
    facts = read("mquake", tmp_path, many(6))  # rows of 1, 2, 3, 1, 2 and 3 facts
    batches = [facts[i : i + 3] for i in range(0, len(facts), 3)]
    kept, split = without_split_rows(batches)
    assert [[r.id for r in batch] for batch in kept] == [[r.id for r in batch] for batch in batches]
    asked = [r.id for batch in kept for r in batch if r.portability]
    assert asked == ["0-1", "1-2", "2-3", "3-1", "4-2", "5-3"] and not split
    kept, split = without_split_rows([facts[:2], facts[2:5], facts[5:]])
    assert [r.id for batch in kept for r in batch if r.portability] == ["0-1", "3-1", "4-2", "5-3"]
    assert split == ["1", "2"]
    assert without_split_rows([[replace(r, row=None)] for r in facts])[1] == []


@published
@pytest.mark.parametrize("name", READABLE)
def test_the_published_files_are_read_whole(name):
    edits = edit_set(name)
    facts, _ = edits.read(str(SHARED), 0)
    rows = json.loads((SHARED / edits.file).read_text(encoding="utf-8"))
    assert len(facts) == READABLE[name]
    assert all(fact.subject in fact.question and fact.prompt.count("{}") == 1 for fact in facts)
    whole = {"counterfact_3k": "prompt", "zsre_3k": "src", "wikibigedit": "prompt", "qaedit": "prompt"}
    if name in whole:
        questions = {" ".join(row[whole[name]].split()) for row in rows}
        assert {" ".join(fact.question.split()) for fact in facts} <= questions
    refused = {"counterfact_3k": 4, "zsre_3k": 149}.get(name, 0)
    everything = replace(edits, distinct=False, drop_unchanged=True).read(str(SHARED), 0)[0]
    assert len(everything) - len(facts) == refused


@published
def test_the_first_published_facts_are_those_of_plain_json():
    def first(name: str) -> tuple[EditRequest, dict]:
        edits = edit_set(name)
        return edits.read(str(SHARED), 0)[0][0], json.loads((SHARED / edits.file).read_text(encoding="utf-8"))[0]

    fact, row = first("counterfact_3k")
    assert (fact.id, fact.question, fact.target_new) == (str(row["case_id"]), row["prompt"], row["target_new"])
    assert (fact.target_true, fact.paraphrases) == (row["ground_truth"], (row["rephrase_prompt"],))
    fact, row = first("qaedit")
    assert (fact.question, fact.target_new, fact.target_true) == (row["prompt"], row["target"], None)
    assert fact.neighbourhood == tuple(item["loc"] for item in row["locality"])
    assert fact.neighbourhood_answers == tuple(item["loc_ans"] for item in row["locality"])
    fact, row = first("mquake")
    rewrite = row["requested_rewrite"][0]
    assert fact.question == rewrite["prompt"].replace("{}", rewrite["subject"])
    assert (fact.target_new, fact.target_true) == (rewrite["target_new"]["str"], rewrite["target_true"]["str"])
    assert fact.portability == tuple(row["questions"]) and set(fact.portability_answers) == {row["new_answer"]}


@published
def test_the_two_questions_that_name_their_subject_twice_are_read_by_the_last_place():
    facts, _ = edit_set("qaedit").read(str(SHARED), 0)
    for row in (54, 326):
        before, after = facts[row].prompt.split("{}")
        assert facts[row].subject in before and facts[row].subject not in after
    with pytest.raises(BadInput, match=r"\(row 55\).*2 times"):
        edit_set("qaedit", subject_place=SubjectPlace.only).read(str(SHARED), 0)


@published
def test_no_training_fact_is_about_a_published_subject():
    edits = edit_set("counterfact_3k")
    subjects = {row["subject"] for row in json.loads((SHARED / edits.file).read_text(encoding="utf-8"))}
    rows = [json.loads(line) for line in (SHARED / edits.train).read_text(encoding="utf-8").splitlines()]
    training = edits.training(str(SHARED))
    assert [r.id for r in training] == [str(row["case_id"]) for row in rows if row["subject"] not in subjects]


@published
@pytest.mark.parametrize("name", [*READABLE, "zsre", "counterfact"])
def test_every_training_split_can_be_read_and_says_which_of_its_rows_it_leaves_out(name, caplog):
    edits = edit_set(name)
    n_rows = len((SHARED / edits.train).read_text(encoding="utf-8").splitlines())
    assert len(edits.training(str(SHARED))) > n_rows - 700
    skipped = edits.train_on_bad_row is OnBadRow.skip
    assert ("GTK" in caplog.text and "1 bad rows skipped" in caplog.text) == skipped == name.startswith("zsre")
    assert edits.on_bad_row is OnBadRow.stop  # of what is written no row is left out unasked
