"""Scores agree with cases worked out by hand."""

from __future__ import annotations

import pytest

from afteredit.evaluate.abilities.answer_scores import (
    entities_as_text,
    entity_f1,
    gold_entities,
    ratio_of_sums,
    read_entities,
    rouge_mean,
)

DOC = {
    "tokens": ["Anna", "Berg", "left", "Oslo", "for", "IBM", "and", "Oslo", "."],
    "ner_tags": ["B-PER", "I-PER", "O", "B-LOC", "O", "B-ORG", "O", "B-LOC", "O"],
}


@pytest.mark.parametrize(
    ("tokens", "tags", "entities"),
    [
        ("Anna Berg slept", "B-PER I-PER O", [("PER", "Anna Berg")]),
        ("Anna Berg", "B-PER B-PER", [("PER", "Anna"), ("PER", "Berg")]),  # two in a row
        ("in New York", "O I-LOC I-LOC", [("LOC", "New York")]),  # I- without B-, as CoNLL's IOB1 has it
        ("IBM Oslo", "B-ORG I-LOC", [("ORG", "IBM"), ("LOC", "Oslo")]),  # the type changes: a new entity
        ("it rains", "O O", []),
    ],
)
def test_gold_entities_follow_the_tags(tokens, tags, entities):
    assert gold_entities(tokens.split(), tags.split()) == entities


@pytest.mark.parametrize(
    ("answer", "entities", "parsed"),
    [
        (" Anna Berg (PER); Oslo (LOC)", [("PER", "Anna Berg"), ("LOC", "Oslo")], True),
        ("Oslo (loc).\nSentence: x (PER)", [("LOC", "Oslo")], True),  # only the first line counts
        ("Bank (old) (ORG)", [("ORG", "Bank (old)")], True),
        (" none", [], True),
        ("None.", [], True),
        ("", [], False),
        ("I see no names here", [], False),
        ("Oslo (CITY)", [], False),
        ("(PER)", [], False),
    ],
)
def test_answers_are_read_or_called_unparseable(answer, entities, parsed):
    assert read_entities(answer) == (entities, parsed)


@pytest.mark.parametrize(
    ("answer", "f1", "unparseable"),
    [
        ("Anna Berg (PER); Oslo (LOC); IBM (ORG); Oslo (LOC)", (8.0, 8.0), 0.0),
        ("anna berg (PER); Oslo (LOC)", (4.0, 6.0), 0.0),  # case aside; one Oslo counts once
        ("Oslo (LOC); Oslo (LOC); Oslo (LOC)", (4.0, 7.0), 0.0),  # the third Oslo is one too many
        ("Anna Berg (LOC); IBM (PER)", (0.0, 6.0), 0.0),  # right text, wrong type
        ("Anna (PER)", (0.0, 5.0), 0.0),  # half an entity is none
        ("none", (0.0, 4.0), 0.0),
        ("The weather is fine", (0.0, 4.0), 1.0),
    ],
)
def test_entity_f1_counts_hits_twice_over_predicted_and_gold(answer, f1, unparseable):
    assert entity_f1(DOC, [answer]) == {"f1": f1, "unparseable": unparseable}


def test_none_for_a_sentence_without_names_neither_helps_nor_hurts():
    assert entity_f1({"tokens": ["rain"], "ner_tags": ["O"]}, ["none"])["f1"] == (0.0, 0.0)


def test_ratio_of_sums_is_micro_averaged():
    assert ratio_of_sums([(8.0, 8.0), (0.0, 4.0), (2.0, 8.0)]) == 0.5
    assert ratio_of_sums([(0.0, 0.0)]) == 0.0
    assert ratio_of_sums(pair for pair in [(1.0, 4.0)]) == 0.25  # lm-eval hands over any iterable


def test_the_gold_answer_as_text_scores_full_marks():
    assert entities_as_text(DOC) == "Anna Berg (PER); Oslo (LOC); IBM (ORG); Oslo (LOC)"
    assert entity_f1(DOC, [entities_as_text(DOC)])["f1"] == (8.0, 8.0)
    assert entities_as_text({"tokens": ["rain"], "ner_tags": ["O"]}) == "none"


@pytest.mark.parametrize("answer", ["Mia will bring four cakes to the party.", " They sing. ", "4 cake", ""])
def test_rouge_is_the_mean_of_three_f_measures_of_rouge_score(answer):
    from rouge_score.rouge_scorer import RougeScorer

    summary = "Mia brings cakes to Ben's party on Saturday."
    f = [RougeScorer([r], use_stemmer=True).score(summary, answer)[r].fmeasure for r in ("rouge1", "rouge2", "rougeL")]
    result = rouge_mean({"summary": summary}, [answer])
    assert result == {"rouge": pytest.approx(sum(f) / 3), "unparseable": float(not answer)}
    assert rouge_mean({"summary": summary}, [summary])["rouge"] == pytest.approx(1)
