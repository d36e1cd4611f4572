"""What stands between a prompt and its answer is the same in a trace as where facts are written and measured."""

from __future__ import annotations

import pytest

from afteredit.commands.locate.known_facts import known_facts
from afteredit.edit.request import EditRequest
from afteredit.model.lm import LM
from afteredit.tests.tiny.models import constant_model


@pytest.mark.parametrize(("subject", "prompt", "separator", "text"), [
    ("法国", "{}的首都是", "auto", "a"), ("法国", "{}的首都是", "space", " a"),
    ("Peru", "The capital of {} is", "auto", " a"), ("Peru", "The capital of {} is", "none", "a"),
])  # fmt: skip
def test_an_answer_is_known_after_its_prompt_and_what_stands_between(tokenizer, subject, prompt, separator, text):
    """The model says one token after every text; the fact is known where that is the answer as it is written."""
    (said,) = tokenizer(text).input_ids
    lm = LM(constant_model(len(tokenizer), said), tokenizer, separator=separator)
    request = EditRequest("r", subject, prompt, "Oslo", target_true="a")
    (fact,) = known_facts(lm, [request], 1).facts
    question = tokenizer(request.question).input_ids
    assert (*fact.ids, fact.answer) == (*question, said)
    assert tokenizer.decode(fact.ids[fact.first : fact.last + 1]).strip() == subject
