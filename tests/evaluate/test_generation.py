"""Greedy answers are those of Hugging Face's own `generate`, row by row."""

from __future__ import annotations

import random

import pytest
import torch

from afteredit.evaluate import likelihood
from afteredit.evaluate.generation import generate


def contexts_of_all_kinds(vocab: int) -> list[tuple[int, ...]]:
    rng = random.Random(2)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(rng.randrange(2, vocab) for _ in range(n))

    prefix = ids(30)
    own = [(*prefix, *ids(n)) for n in (1, 5, 2, 11)]
    return [*own, ids(3), ids(1), ids(19), own[1]]


def greedy_by_hugging_face(lm, context, n_tokens) -> list[int]:
    ids = torch.tensor([context])
    out = lm.model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=n_tokens, do_sample=False, eos_token_id=None,
        pad_token_id=0,
    )  # fmt: skip
    return out[0, len(context) :].tolist()


def test_greedy_answers_are_hugging_faces(make_lm, family):
    lm = make_lm(family)
    contexts = contexts_of_all_kinds(len(lm.tokenizer))
    expected = [greedy_by_hugging_face(lm, context, 8) for context in contexts]
    assert generate(lm, contexts, 8) == expected
    assert len({tuple(answer) for answer in expected}) > 3  # the contexts do differ


@pytest.mark.parametrize("budget", [1, 60])
def test_neither_shared_prefixes_nor_the_batch_change_an_answer(make_lm, family, monkeypatch, budget):
    lm = make_lm(family)
    contexts = contexts_of_all_kinds(len(lm.tokenizer))
    together = generate(lm, contexts, 6)
    monkeypatch.setattr(likelihood, "SHARED_AT_LEAST", 10_000)
    monkeypatch.setattr(likelihood, "TOKEN_BUDGET", budget)
    assert generate(lm, contexts, 6) == together


def test_a_row_ends_at_done_and_the_others_go_on(make_lm, family):
    lm = make_lm(family)
    contexts = contexts_of_all_kinds(len(lm.tokenizer))
    whole = generate(lm, contexts, 8)
    stops = {tuple(answer[: 2 + i % 5]) for i, answer in enumerate(whole)}

    def done(ids: list[int]) -> bool:
        return tuple(ids) in stops

    def cut(answer: list[int]) -> list[int]:
        return next((answer[:n] for n in range(1, 9) if tuple(answer[:n]) in stops), answer)

    stopped = generate(lm, contexts, 8, done)
    assert stopped == [cut(answer) for answer in whole]
    assert len({len(answer) for answer in stopped}) > 2
