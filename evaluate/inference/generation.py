"""Greedy answers: contexts that begin alike share their prefix, and each row stops on its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch

from afteredit.evaluate.inference.answered import Answered, TokenScores
from afteredit.evaluate.inference.batches import Ids
from afteredit.evaluate.inference.budgets import budgets_of
from afteredit.evaluate.inference.kept_blocks import KeptBlocks
from afteredit.evaluate.inference.likelihood import (
    Continuations,
    ReadRows,
    may_pad,
    read_contexts,
    score_continuations,
)
from afteredit.model.decoding import decode, greedy
from afteredit.model.lm import LM
from afteredit.store.progress.work import working

IsComplete = Callable[[list[int]], bool]


def generate(lm: LM, contexts: Sequence[Ids], n_tokens: int, is_complete: IsComplete | None = None) -> list[list[int]]:
    """Returns up to `n_tokens` greedy ids after each context; an answer ends once `is_complete(its ids)`."""
    _, answers = score_and_generate(lm, dict.fromkeys(contexts, ()), n_tokens, is_complete)
    return [answers[context] for context in contexts]


@torch.no_grad()
def score_and_generate(
    lm: LM,
    continuations: Continuations,
    n_tokens: int,
    is_complete: IsComplete | None = None,
    kept_blocks: KeptBlocks | None = None,
    answered: Answered | None = None,
) -> tuple[dict[tuple[Ids, Ids], TokenScores], dict[Ids, list[int]]]:
    """Returns what `score` gives for every (context, continuation) and `generate` for every context, from one pass.

    Goes on from what is `answered`, and adds to it.
    """
    answered = Answered() if answered is None else answered
    scores: dict[tuple[Ids, Ids], TokenScores] = {}

    def scored_contexts() -> Iterator[ReadRows]:
        for contexts in read_contexts(lm, continuations, n_tokens, kept_blocks, answered.contexts):
            scores.update(score_continuations(lm, contexts, continuations))
            yield contexts

    padding, most = may_pad(lm, continuations, n_tokens), budgets_of(lm).columns

    def stop(_row: int, ids: list[int]) -> bool:
        ends = is_complete is not None and is_complete(ids)
        work.done += ends
        return ends

    with working("rows", len(continuations), len(answered.contexts)) as work:
        for group in _groups_within(most, scored_contexts(), n_tokens, padding=padding):
            new_ids = decode(lm, [contexts.ends for contexts in group], n_tokens, greedy, stop)
            rows = [row for contexts in group for row in contexts.rows]
            pairs = [(row, continuation) for row in rows for continuation in continuations[row]]
            answered.add(rows, {pair: scores[pair] for pair in pairs}, dict(zip(rows, new_ids, strict=True)))
            work.done = len(answered.contexts)
    return answered.scores, answered.ids


def _groups_within(
    columns: int, reads: Iterable[ReadRows], n_tokens: int, *, padding: bool
) -> Iterator[list[ReadRows]]:
    """Yields batches to continue together: a step of decoding costs little more for many rows than for one."""
    group: list[ReadRows] = []
    for contexts in reads:
        widths = {member.n_columns for member in [*group, contexts]}
        n_rows = sum(len(member.rows) for member in [*group, contexts])
        fits = n_rows * (max(widths) + n_tokens) <= columns and (padding or len(widths) == 1)
        if group and not fits:
            yield group
            group = []
        group.append(contexts)
    if group:
        yield group
