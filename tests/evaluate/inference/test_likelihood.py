"""The shared computation gives the scores of one plain forward pass per request."""

from __future__ import annotations

import random

import pytest
import torch

from afteredit.evaluate.inference import batches, likelihood
from afteredit.evaluate.inference.batches import shared_prefixes
from afteredit.evaluate.inference.likelihood import score


def plain(lm, context, continuation):
    """Returns (log p per token, argmax ids) of one request from the model's own logits, without cache or padding."""
    with torch.no_grad():
        logits_TV = lm.model(torch.tensor([[*context, *continuation]]), use_cache=False).logits[0]
    log_p_TV = logits_TV[len(context) - 1 : -1].log_softmax(-1)
    return log_p_TV[range(len(continuation)), list(continuation)].tolist(), tuple(log_p_TV.argmax(-1).tolist())


def hard_pairs(vocab: int) -> list[tuple]:
    """Returns pairs with few-shot prefixes, several continuations, duplicates, one-token contexts, a lone context."""
    rng = random.Random(0)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(rng.randrange(2, vocab) for _ in range(n))

    pairs = []
    for length in (40, 23):
        prefix = ids(length)
        for n in (1, 4, 9, 2):
            context = (*prefix, *ids(n))
            pairs += [(context, ids(k)) for k in (1, 3, 5, 2)]
        pairs.append(((*prefix, 5), ids(2)))
    pairs += [((7,), ids(4)), ((7,), ids(1)), ((9,), ids(2)), (ids(12), ids(5)), (ids(3), (4,))]
    nested = ids(30)  # one context is the beginning of another
    pairs += [(nested[:20], ids(2)), (nested, ids(3)), (nested[:20], nested[20:25])]
    pairs += [pairs[3], pairs[0], pairs[-1]]
    rng.shuffle(pairs)
    return pairs


def assert_as_plain(lm, pairs):
    for (context, continuation), scores in zip(pairs, score(lm, pairs), strict=True):
        log_p, argmax_ids = plain(lm, context, continuation)
        assert scores.log_p == pytest.approx(log_p, abs=1e-11)
        assert scores.argmax_ids == argmax_ids
        assert scores.nll == pytest.approx(-sum(log_p) / len(log_p), abs=1e-11)


def test_scores_are_those_of_one_plain_forward_pass_per_request(make_lm, family, float64_throughout):
    lm = make_lm(family, dtype=torch.float64)
    assert_as_plain(lm, hard_pairs(len(lm.tokenizer)))


@pytest.mark.parametrize("budget", [1, 30, 120])
def test_the_token_budget_changes_no_score(make_lm, monkeypatch, float64_throughout, budget):
    monkeypatch.setattr(batches, "TOKEN_BUDGET", budget)
    monkeypatch.setattr(likelihood, "LOGIT_ROWS", 3)
    lm = make_lm("gpt2", dtype=torch.float64)
    assert_as_plain(lm, hard_pairs(len(lm.tokenizer)))


def test_shared_prefixes_give_each_context_once_and_longer_than_its_prefix(make_lm):
    contexts = list(dict.fromkeys(context for context, _ in hard_pairs(500)))
    groups = list(shared_prefixes(contexts))
    given = [context for _, group in groups for context in group]
    assert sorted(given) == sorted(contexts) and len(given) == len(contexts)
    for prefix, group in groups:
        assert all(context[: len(prefix)] == prefix and len(context) > len(prefix) for context in group)
    assert sorted(len(prefix) for prefix, group in groups if prefix)[-2:] == [23, 40]
