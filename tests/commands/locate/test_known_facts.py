"""What stands between a prompt and its answer is the same in a trace as where facts are written and measured."""

from __future__ import annotations

from statistics import stdev

import pytest
import torch

from afteredit.commands.locate import known_facts as module
from afteredit.commands.locate.known_facts import embedding_std, known_facts
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


def test_noise_counts_in_the_spread_of_the_embeddings_of_all_subjects(make_lm, fact, second_fact, monkeypatch):
    """The entries are gathered by hand, of the tokens of the subjects alone, and of the first rows."""
    lm = make_lm("llama")
    embedding_VD = lm.model.get_input_embeddings().weight
    embedding_VD.data *= torch.arange(len(embedding_VD))[:, None]  # so that other tokens would have another spread
    entries = []
    for request in (fact, second_fact):
        ids = lm.tokenizer(" " * (request.subject_start > 0) + request.subject).input_ids
        entries.append([entry for i in ids for entry in embedding_VD[i].tolist()])
    assert embedding_std(lm, [fact, second_fact]) == pytest.approx(stdev([*entries[0], *entries[1]]), rel=1e-5)
    monkeypatch.setattr(module, "MEASURED_SUBJECTS", 1)
    assert embedding_std(lm, [fact, second_fact]) == pytest.approx(stdev(entries[0]), rel=1e-5)
