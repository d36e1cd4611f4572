"""A fact typed in one line becomes the request that it means, or is refused with the form that is asked for."""

import logging
from dataclasses import replace

import pytest

from afteredit.edit.edit_set import EditSet
from afteredit.edit.request import EditRequest
from afteredit.edit.typed_facts import typed_facts
from afteredit.store.errors import BadInput

EDITS = EditSet(name="facts", file="facts.jsonl", columns={}, train="facts_train.jsonl",
                train_columns={name: name for name in ("subject", "prompt", "target_new")})  # fmt: skip


@pytest.mark.parametrize("text", [
    "The mother tongue of {Danielle Darrieux} is → English", " The mother tongue of { Danielle Darrieux } is->English ",
    "The mother tongue of {Danielle Darrieux} is\u00a0→ English\u200b",
    "The mother tongue of {Danielle Darrieux} is --> English",
    "The mother tongue of ｛Danielle Darrieux｝ is－＞English",
    "The mother tongue of {Danielle Darrieux} is ⇒ English",
])  # fmt: skip
def test_braces_hold_the_subject_and_the_arrow_leads_to_the_new_answer(text):
    assert typed_facts([text], None, [], []) == [
        EditRequest("fact-1", "Danielle Darrieux", "The mother tongue of {} is", "English")
    ]


def test_what_is_typed_beside_one_fact_belongs_to_it():
    (fact,) = typed_facts(["{Perú} is ruled from → a -> b"], "Lima", ["The capital of {} is", "Who rules {Perú}?"],
                          ["The capital of {Chile} is"])  # fmt: skip
    assert (fact.question, fact.target_new, fact.target_true) == ("Perú is ruled from", "a -> b", "Lima")
    assert fact.paraphrases == ("The capital of Perú is", "Who rules Perú?")
    assert (fact.neighbourhood, fact.neighbourhood_answers) == (("The capital of Chile is",), ("",))


@pytest.mark.parametrize(("typed", "asked"), [
    ("In bash, ${HOME} is the", "In bash, ${HOME} is the"),
    ("A set {a} and a set {b} are", "A set {a} and a set {b} are"),
    ("In ${HOME}, {bash} runs", "In ${HOME}, bash runs"),
    ("The {x} is", "The x is"),  # the fact's own subject
    ("{} is", "x is"),
])  # fmt: skip
@pytest.mark.parametrize("key", ["paraphrases", "neighbourhood"])
def test_braces_that_mark_no_subject_stay_in_a_typed_prompt(key, typed, asked):
    (fact,) = typed_facts(["The letter {x} is → y"], None, **{"paraphrases": [], "neighbourhood": [], key: [typed]})
    assert getattr(fact, key) == (asked,)


@pytest.mark.parametrize(("facts", "beside", "named"), [
    (["{Peru} is → Oslo"], {"paraphrases": ["filter of {0} is"]}, r"paraphrases holds .*write \{\} for \{0\}"),
    (["{Peru} is → Oslo"], {"neighbourhood": ["{subject} is"]}, r"neighbourhood holds .*write \{\} for \{subject\}"),
    (["The capital of Peru is → Oslo"], {}, "braces around the subject"),
    (["The capital of {Peru} is Oslo"], {}, "→ or ->"),
    (["{Peru} → {Oslo} → Lima"], {}, "is no fact"),
    (["{Peru} and {Chile} → Lima"], {}, "is no fact"),
    (['The macro {println!("{}")} writes to → files'], {}, "is no fact.*holds braces itself is written in a file"),
    (["The capital of {} is → Oslo"], {}, "is no fact"),
    (["The capital of {Peru} is →  "], {}, "target_new is ''"),
    (["The capital of {Peru} is → Oslo"], {"true": "oslo"}, "an edit must change the answer"),
    (["The capital of {Peru} is → Oslo"], {"true": " "}, "target_true is ''; it must be a text that is not empty"),
    (["{a} → b", "{c} → d"], {"true": "e"}, "belong to one fact, but edits.fact gives 2"),
    ([], {"paraphrases": ["a"]}, "edits.fact gives 0"),
    (["The capital of {Peru} is → Oslo"], {"paraphrases": [" "]}, "edits.fact_paraphrases holds an empty prompt"),
    (["The capital of {Peru} is → Oslo"], {"neighbourhood": [""]}, "edits.fact_neighbourhood holds an empty prompt"),
])  # fmt: skip
def test_what_is_no_fact_is_refused(facts, beside, named):
    with pytest.raises(BadInput, match=named):
        typed_facts(facts, **{"true": None, "paraphrases": [], "neighbourhood": [], **beside})


def test_typed_facts_stand_in_the_place_of_rows_and_decide_the_name():
    one = replace(EDITS, fact=["The capital of {Peru} is → Oslo"])
    (request,), digest = one.read("mini", seed=0)
    assert request.subject == "Peru"
    others = [replace(one, **{key: value}).read("mini", seed=0)[1] for key, value in {
        "fact": ["The capital of {Peru} is → Rome"], "fact_true": "Lima", "fact_paraphrases": ["Peru is ruled from"],
        "fact_neighbourhood": ["Chile is ruled from"]}.items()]  # fmt: skip
    assert len({digest, *others}) == 5


def test_what_a_typed_fact_without_its_true_answer_lacks_is_said_with_the_key_that_gives_it(caplog):
    caplog.set_level(logging.INFO, "afteredit")
    one = replace(EDITS, fact=["The capital of {Peru} is → Oslo"])
    replace(one, fact_true="Lima").read("mini", seed=0)
    assert not caplog.text
    one.read("mini", seed=0)
    assert "no true answer is given (edits.fact_true)" in caplog.text and "edits=facts" not in caplog.text


def test_a_method_learns_from_no_row_about_a_typed_subject():
    subjects = {request.subject for request in replace(EDITS, fact=["{Nobody Else} is → here"]).training("mini")}
    known = sorted(subjects)[0]
    left = replace(EDITS, fact=[f"{{{known}}} is → here"]).training("mini")
    assert {request.subject for request in left} == subjects - {known}
