"""Greedy answers: contexts that begin alike share their prefix, rows stop on their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from afteredit.edit.generate import decode, greedy
from afteredit.edit.lm import LM
from afteredit.evaluate.likelihood import Ids, context_pass, packed, prefilled, shared_prefixes


@torch.no_grad()
def generate(
    lm: LM, contexts: Sequence[Ids], n_tokens: int, done: Callable[[list[int]], bool] | None = None
) -> list[list[int]]:
    """Up to `n_tokens` greedy ids behind each context; a row ends at `done(its ids)`, that token included."""
    answers: dict[Ids, list[int]] = {}
    for prefix, group in shared_prefixes(list(dict.fromkeys(contexts))):
        cache = prefilled(lm, prefix)
        for batch in packed({context: len(context) - len(prefix) + n_tokens for context in group}):
            logits_BV, extended, mask_BT = context_pass(lm, prefix, cache, batch)
            stop = None if done is None else (lambda _row, ids: done(ids))
            new = decode(lm, logits_BV, mask_BT, extended, n_tokens, greedy, stop)
            answers.update(zip(batch, new, strict=True))
    return [answers[context] for context in contexts]
