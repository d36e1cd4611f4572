"""Greedy answers: contexts that begin alike share their prefix, rows stop on their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from afteredit.edit.generate import decode, greedy
from afteredit.edit.lm import LM
from afteredit.evaluate.likelihood import Ids, Scored, Wanted, passes, score_pass


def generate(
    lm: LM, contexts: Sequence[Ids], n_tokens: int, done: Callable[[list[int]], bool] | None = None
) -> list[list[int]]:
    """Up to `n_tokens` greedy ids behind each context; a row ends at `done(its ids)`, that token included."""
    _, answers = score_and_generate(lm, dict.fromkeys(contexts, ()), n_tokens, done)
    return [answers[context] for context in contexts]


@torch.no_grad()
def score_and_generate(
    lm: LM, wanted: Wanted, n_tokens: int, done: Callable[[list[int]], bool] | None = None
) -> tuple[dict[tuple[Ids, Ids], Scored], dict[Ids, list[int]]]:
    """What `score` gives for every (context, continuation) wanted and `generate` for every context, from one pass."""
    stop = None if done is None else (lambda _row, ids: done(ids))
    scores: dict[tuple[Ids, Ids], Scored] = {}
    answers: dict[Ids, list[int]] = {}
    for one in passes(lm, wanted, n_tokens):
        scores |= score_pass(lm, one, wanted)  # first: `decode` uses the cache up
        new = decode(lm, one.logits_BV, one.mask_BT, one.cache, n_tokens, greedy, stop)
        answers.update(zip(one.contexts, new, strict=True))
    return scores, answers
