"""Tasks whose choices are contexts of one ending, as WinoGrande's are, or whole sentences, as BLiMP's."""

from __future__ import annotations

import datasets
import pytest
import torch

from afteredit.evaluate.abilities.ability import Ability
from afteredit.evaluate.abilities.built_ability import BuiltAbility
from afteredit.model.lm import LM

METRICS = [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]
ROWS = [{"places": ["Ann was quick, so Ann", "Ann was quick, so Bo"], "end": "won the race.", "right": 1},
        {"places": ["The cup was full, so it", "The jug was full, so it"], "end": "ran over.", "right": 0}]  # fmt: skip
SENTENCES = [{"good": "These cats sleep.", "bad": "These cats sleeps."}]


@pytest.fixture
def lm(make_lm) -> LM:
    return make_lm("llama", start_token="<|endoftext|>")


def built(rows: list[dict], **config) -> BuiltAbility:
    task = {"output_type": "multiple_choice", "metric_list": METRICS, "target_delimiter": " ", **config,
            "custom_dataset": lambda **_: {"test": datasets.Dataset.from_list(rows)}}  # fmt: skip
    return BuiltAbility("own", Ability("acc", 0.5, task), "mini", None)


def plain_log_p(lm: LM, context: str, whole: str) -> torch.Tensor:
    before, ids = (list(lm.tokens.encode(text)) for text in (context, whole))
    with torch.no_grad():
        log_p_TV = lm.model(torch.tensor([ids])).logits[0, len(before) - 1 : -1].log_softmax(-1)
    return log_p_TV[range(len(ids) - len(before)), ids[len(before) :]]


def test_the_right_context_of_an_ending_is_what_is_wanted(lm):
    ability = built(ROWS, doc_to_text="right", doc_to_target="end", doc_to_choice="places")
    scores = ability.measure(lm)
    log_p = [[plain_log_p(lm, place, f"{place} {row['end']}") for place in row["places"]] for row in ROWS]
    assert [example.log_likelihoods for example in scores.examples] == [
        pytest.approx([float(one.sum()) for one in each], abs=1e-4) for each in log_p
    ]
    wanted = [-float(each[row["right"]].mean()) for row, each in zip(ROWS, log_p, strict=True)]
    assert [example.gold_nll for example in scores.examples] == pytest.approx(wanted, abs=1e-5)
    assert [question["wanted"] for question in ability.questions()] == [row["places"][row["right"]] for row in ROWS]


def test_a_sentence_without_a_question_is_scored_whole(lm):
    ability = built(SENTENCES, doc_to_text="", doc_to_target=0, doc_to_choice="{{[good, bad]}}", target_delimiter="")
    (example,) = ability.measure(lm).examples
    log_p = plain_log_p(lm, "", SENTENCES[0]["good"])
    assert example.gold_nll == pytest.approx(-float(log_p.mean()), abs=1e-5)
    assert ability.questions()[0]["wanted"] == "These cats sleep."
