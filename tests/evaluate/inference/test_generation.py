"""Greedy answers are those of Hugging Face's own `generate`, row by row, whether or not they are scored on the way."""

from __future__ import annotations

import random

import pytest
import torch

from afteredit.evaluate.inference import batches, generation
from afteredit.evaluate.inference.generation import generate, score_and_generate
from afteredit.evaluate.inference.likelihood import read_contexts, score


def contexts_of_all_kinds(vocab: int) -> list[tuple[int, ...]]:
    rng = random.Random(2)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(rng.randrange(2, vocab) for _ in range(n))

    prefix = ids(30)
    alike = [(*prefix, *ids(n)) for n in (1, 5, 2, 11)]
    return [*alike, ids(3), ids(1), ids(19), alike[1]]


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
def test_neither_shared_prefixes_nor_the_batch_change_an_answer(make_lm, monkeypatch, budget):
    lm = make_lm("gpt2")
    contexts = contexts_of_all_kinds(len(lm.tokenizer))
    together = generate(lm, contexts, 6)
    monkeypatch.setattr(batches, "SHARED_AT_LEAST", 10_000)
    monkeypatch.setattr(batches, "TOKEN_BUDGET", budget)
    assert generate(lm, contexts, 6) == together


def test_a_complete_row_ends_and_the_others_go_on(make_lm):
    lm = make_lm("gpt2")
    contexts = contexts_of_all_kinds(len(lm.tokenizer))
    whole = generate(lm, contexts, 8)
    stops = {tuple(answer[: 2 + i % 5]) for i, answer in enumerate(whole)}

    def is_complete(ids: list[int]) -> bool:
        return tuple(ids) in stops

    def cut(answer: list[int]) -> list[int]:
        return next((answer[:n] for n in range(1, 9) if tuple(answer[:n]) in stops), answer)

    stopped = generate(lm, contexts, 8, is_complete)
    assert stopped == [cut(answer) for answer in whole]
    assert len({len(answer) for answer in stopped}) > 2


def continuations_of_all_kinds(vocab: int) -> dict[tuple[int, ...], list[tuple[int, ...]]]:
    """Returns contexts with several continuations, short ones, and none."""
    kinds = [[(5,), (7, 8, 9), (11, 12)], [(3,)], [], [(20, 21, 22, 23)]]
    contexts = dict.fromkeys(contexts_of_all_kinds(vocab))
    return {context: kinds[i % len(kinds)] for i, context in enumerate(contexts)}


@pytest.mark.parametrize("budget", [1, 60, 4096])
def test_one_pass_gives_what_scoring_and_generating_apart_give(make_lm, monkeypatch, budget):
    monkeypatch.setattr(batches, "TOKEN_BUDGET", budget)
    lm = make_lm("llama")
    continuations = continuations_of_all_kinds(len(lm.tokenizer))
    pairs = [(context, continuation) for context, group in continuations.items() for continuation in group]
    scores, answers = score_and_generate(lm, continuations, 6)
    assert [answers[context] for context in continuations] == generate(lm, list(continuations), 6)
    assert scores.keys() == set(pairs)
    for pair, apart in zip(pairs, score(lm, pairs), strict=True):
        assert scores[pair].argmax_ids == apart.argmax_ids
        # one context a batch: the same arithmetic, bit for bit; else a float32 sum over the vocabulary in another order
        rounding = 0 if budget == 1 else len(lm.tokenizer) ** 0.5 * torch.finfo(torch.float32).eps
        assert scores[pair].log_p == pytest.approx(apart.log_p, rel=rounding, abs=0)


def test_one_pass_computes_no_context_twice(make_lm, monkeypatch):
    lm = make_lm("llama")
    continuations = continuations_of_all_kinds(len(lm.tokenizer))
    pairs = [(context, continuation) for context, group in continuations.items() for continuation in group]
    tokens, forward = [0], lm.forward

    def counting(ids_BT, mask_BT, cache, past):
        tokens[0] += int(mask_BT[:, past:].sum())
        return forward(ids_BT, mask_BT, cache, past)

    def cost(call, *args) -> int:
        tokens[0] = 0
        call(lm, *args)
        return tokens[0]

    monkeypatch.setattr(lm, "forward", counting)
    contexts_alone = cost(generate, list(continuations), 1)
    scored = [context for context, group in continuations.items() if group]
    apart = cost(score, pairs) - cost(generate, scored, 1) + cost(generate, list(continuations), 6)
    assert contexts_alone > 40 and cost(score_and_generate, continuations, 6) == apart


def test_a_batch_leaves_room_for_what_is_generated_and_for_its_copies_of_the_prefix(make_lm, monkeypatch):
    monkeypatch.setattr(batches, "CACHE_BUDGET", 100)
    lm = make_lm("llama")
    contexts = [(3 + i, 5, 7, 9) for i in range(12)]

    def batch_sizes(*arguments) -> list[int]:
        return [len(read.rows) for read in read_contexts(lm, *arguments)]

    assert batch_sizes(dict.fromkeys(contexts, ()), 21) == [4, 4, 4]  # 4 + 21 each
    assert batch_sizes(dict.fromkeys(contexts, [(1, 2, 3)]), 40) == [2] * 6
    prefix = tuple(range(40, 60))
    with_prefix = [(*prefix, *context) for context in contexts]
    assert batch_sizes(dict.fromkeys(with_prefix, [(1,)])) == [4, 4, 4]  # 20 + 4 + 1 each
    monkeypatch.setattr(batches, "CACHE_BUDGET", 1000)
    assert batch_sizes(dict.fromkeys(contexts, [(1, 2)])) == [12]


def test_passes_are_continued_together_within_the_cache_budget(make_lm, monkeypatch):
    lm = make_lm("gpt2")
    contexts = contexts_of_all_kinds(len(lm.tokenizer))
    expected = generate(lm, contexts, 6)
    monkeypatch.setattr(batches, "TOKEN_BUDGET", 1)
    groups = []
    original = generation.decode
    monkeypatch.setattr(generation, "decode", lambda lm, ends, *rest: (
        groups.append([tuple(rows.mask_BT.shape) for rows in ends]), original(lm, ends, *rest))[1])  # fmt: skip
    monkeypatch.setattr(batches, "CACHE_BUDGET", 120)
    assert generate(lm, contexts, 6) == expected
    assert max(map(len, groups)) > 1
    assert all(len(shapes) * (max(width for _, width in shapes) + 6) <= 120 for shapes in groups)


def test_no_contexts_give_no_answers(make_lm):
    assert score_and_generate(make_lm("gpt2"), {}, 3) == ({}, {})
