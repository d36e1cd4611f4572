"""Greedy answers: contexts that begin alike share their prefix, rows stop on their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch

from afteredit.evaluate.inference import batches as packing
from afteredit.evaluate.inference.kept_blocks import BaseBlocks
from afteredit.evaluate.inference.likelihood import Ids, Pass, Scored, Wanted, may_pad, passes, score_pass
from afteredit.model.decoding import decode, greedy
from afteredit.model.lm import LM


def generate(
    lm: LM, contexts: Sequence[Ids], n_tokens: int, done: Callable[[list[int]], bool] | None = None
) -> list[list[int]]:
    """Up to `n_tokens` greedy ids behind each context; a row ends at `done(its ids)`, that token included."""
    _, answers = score_and_generate(lm, dict.fromkeys(contexts, ()), n_tokens, done)
    return [answers[context] for context in contexts]


@torch.no_grad()
def score_and_generate(
    lm: LM,
    wanted: Wanted,
    n_tokens: int,
    done: Callable[[list[int]], bool] | None = None,
    base: BaseBlocks | None = None,
) -> tuple[dict[tuple[Ids, Ids], Scored], dict[Ids, list[int]]]:
    """What `score` gives for every (context, continuation) wanted and `generate` for every context, from one pass."""
    stop = None if done is None else (lambda _row, ids: done(ids))
    scores: dict[tuple[Ids, Ids], Scored] = {}
    answers: dict[Ids, list[int]] = {}

    def scored() -> Iterator[Pass]:
        for one in passes(lm, wanted, n_tokens, base):
            scores.update(score_pass(lm, one, wanted))
            yield one

    for together in _continued_together(scored(), n_tokens, padded=may_pad(lm, wanted, n_tokens)):
        new = decode(lm, [one.prompts for one in together], n_tokens, greedy, stop)
        answers.update(zip((row for one in together for row in one.rows), new, strict=True))
    return scores, answers


def _continued_together(every: Iterable[Pass], n_tokens: int, *, padded: bool) -> Iterator[list[Pass]]:
    """Within the cache budget: a step of decoding costs little more for many rows than for one."""
    group: list[Pass] = []
    for one in every:
        widths = {member.prompts.mask_BT.shape[1] for member in [*group, one]}
        n_rows = sum(len(member.rows) for member in [*group, one])
        fits = n_rows * (max(widths) + n_tokens) <= packing.CACHE_BUDGET and (padded or len(widths) == 1)
        if group and not fits:
            yield group
            group = []
        group.append(one)
    if group:
        yield group
