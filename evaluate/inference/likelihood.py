"""Log-likelihoods of continuations, with everything that is shared computed once.

Requests share on three levels: contexts that begin alike (a few-shot prefix) share that prefix; the continuations of
one context share the context; continuations of one token need nothing beyond the context's last logits.  The result is
that of one plain forward pass per request (a test compares the two).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from afteredit.evaluate.inference.answered import Answered, TokenScores
from afteredit.evaluate.inference.batches import Ids, RowSize, batches_of_like_length, shared_prefixes
from afteredit.evaluate.inference.budgets import budgets_of
from afteredit.evaluate.inference.kept_blocks import Forward, KeptBlocks
from afteredit.model.decoding import RowEnds
from afteredit.model.kv_cache import cache_rows
from afteredit.model.lm import LM
from afteredit.model.tensors import pad
from afteredit.store.progress.work import working

Continuations = Mapping[Ids, Collection[Ids]]  # by context, the continuations to score, each once
LOGIT_ROWS = 512  # rows of logits held at once


@dataclass(frozen=True)
class ReadRows:
    """Holds token rows that were read together to their ends, and the forward pass that reads on after them."""

    rows: list[Ids]
    ends: RowEnds
    forward: Forward

    @property
    def n_columns(self) -> int:
        return self.ends.mask_BT.shape[1]


@torch.no_grad()
def score(
    lm: LM,
    pairs: Sequence[tuple[Ids, Ids]],
    kept_blocks: KeptBlocks | None = None,
    answered: Answered | None = None,
) -> list[TokenScores]:
    """Returns the scores of every (context, continuation), neither empty, in their order.

    Goes on from what is `answered`, and adds to it.
    """
    answered = Answered() if answered is None else answered
    continuations: dict[Ids, dict[Ids, None]] = {}
    for context, continuation in pairs:
        continuations.setdefault(context, {})[continuation] = None
    with working("rows", len(continuations), len(answered.contexts)) as work:
        for contexts in read_contexts(lm, continuations, 0, kept_blocks, answered.contexts):
            answered.add(contexts.rows, score_continuations(lm, contexts, continuations), {})
            work.done = len(answered.contexts)
    return [answered.scores[pair] for pair in pairs]


@torch.no_grad()
def read_contexts(
    lm: LM,
    continuations: Continuations,
    n_tokens: int = 0,
    kept_blocks: KeptBlocks | None = None,
    done: Collection[Ids] = (),
) -> Iterator[ReadRows]:
    """Yields every context, read once, in batches with room for its continuations and for `n_tokens` new tokens.

    Leaves out batches of contexts that are `done`; the others are as if none was.
    """
    kept_blocks = KeptBlocks(lm, 0.0) if kept_blocks is None else kept_blocks
    padding = may_pad(lm, continuations, n_tokens)
    lengths = {c: len(c) + max(n_tokens, 1, *map(len, after)) for c, after in continuations.items()}
    n_passes = 1 + any(len(continuation) > 1 for after in continuations.values() for continuation in after)
    contexts_of = dict(shared_prefixes(list(continuations)))
    for prefixes in _read_prefixes(lm, list(contexts_of), kept_blocks, padding=padding, n_passes=1 + n_passes):
        prefix_of = {context: prefix for prefix in prefixes.rows for context in contexts_of[prefix]}
        sizes = {
            context: RowSize(len(context) - len(prefix), prefixes.n_columns + lengths[context] - len(prefix))
            for context, prefix in prefix_of.items()
        }
        for batch in batches_of_like_length(sizes, budgets_of(lm), padding=padding, n_passes=n_passes):
            if all(context in done for context in batch):
                continue
            passes = tuple(prefixes.rows), tuple((c, tuple(continuations[c])) for c in batch), n_tokens > 0
            with kept_blocks.forward_of(passes, continued=n_tokens > 0) as forward:
                yield _read_on(lm, forward, prefixes, {context: prefix_of[context] for context in batch})


def _read_prefixes(
    lm: LM, prefixes: list[Ids], kept_blocks: KeptBlocks, *, padding: bool, n_passes: int
) -> Iterator[ReadRows]:
    """Yields the empty prefix, which needs no computing, where it is among the prefixes; then the others in batches."""
    nothing = RowEnds(torch.zeros(1, 0), DynamicCache(), torch.zeros(1, 0, dtype=torch.long))
    empty = ReadRows([()], nothing, lm.forward)
    if () in prefixes:
        yield empty
    sizes = {prefix: RowSize(len(prefix), len(prefix)) for prefix in prefixes if prefix}
    for batch in batches_of_like_length(sizes, budgets_of(lm), padding=padding, n_passes=n_passes):
        with kept_blocks.forward_of(tuple(batch), continued=True) as forward:
            rows = _read_on(lm, forward, empty, dict.fromkeys(batch, ()))
        yield rows


def _read_on(lm: LM, forward: Forward, prefixes: ReadRows, prefix_of: dict[Ids, Ids]) -> ReadRows:
    """Reads the rows of `prefix_of`, each from the end of its prefix, a row of `prefixes`, to its own end."""
    rows = list(prefix_of)
    prefix_index_B = torch.tensor([prefixes.rows.index(prefix) for prefix in prefix_of.values()])
    prefix_mask_BP = prefixes.ends.mask_BT[prefix_index_B]
    ids_BT, new_mask_BT = pad([row[len(prefix) :] for row, prefix in prefix_of.items()], "right")
    mask_BT = torch.cat([prefix_mask_BP, new_mask_BT], dim=1)
    cache = cache_rows(prefixes.ends.cache, prefix_index_B)
    hidden_BTD = forward(ids_BT, mask_BT, cache, prefix_mask_BP.shape[1])
    logits_BV = lm.logits(hidden_BTD[torch.arange(len(rows)), new_mask_BT.sum(-1) - 1])
    return ReadRows(rows, RowEnds(logits_BV, cache, mask_BT), forward)


@torch.no_grad()
def score_continuations(lm: LM, contexts: ReadRows, continuations: Continuations) -> dict[tuple[Ids, Ids], TokenScores]:
    """Returns the scores of every (context, continuation) of contexts that were read, which are left as they were."""
    pairs = [(row, after) for row, context in enumerate(contexts.rows) for after in continuations[context]]
    if not pairs:
        return {}
    logits_BV = contexts.ends.logits_BV
    rows_N, first_N = torch.tensor([row for row, _ in pairs]), torch.tensor([after[0] for _, after in pairs])
    first_tokens = _log_p_and_argmax(logits_BV[rows_N.to(logits_BV.device)], first_N)
    later_tokens = _later_tokens(lm, contexts, [pair for pair in pairs if len(pair[1]) > 1])
    scores = {}
    for pair, first_token in zip(pairs, first_tokens, strict=True):
        log_p, argmax_ids = zip(first_token, *later_tokens.get(pair, []), strict=True)
        scores[contexts.rows[pair[0]], pair[1]] = TokenScores(log_p, argmax_ids)
    return scores


def _later_tokens(
    lm: LM, contexts: ReadRows, pairs: list[tuple[int, Ids]]
) -> dict[tuple[int, Ids], list[tuple[float, int]]]:
    """Returns (log p, likeliest id) of every token but the first, by (row, continuation): branches of one context."""
    past = contexts.n_columns
    tokens_by_pair = {}
    sizes = {pair: RowSize(len(pair[1]) - 1, past + len(pair[1]) - 1) for pair in pairs}
    for batch in batches_of_like_length(sizes, budgets_of(lm)):
        rows_N = torch.tensor([row for row, _ in batch])
        ids_NT, new_mask_NT = pad([continuation[:-1] for _, continuation in batch], "right")
        mask_NT = torch.cat([contexts.ends.mask_BT[rows_N], new_mask_NT], dim=1)
        hidden_NTD = contexts.forward(ids_NT, mask_NT, cache_rows(contexts.ends.cache, rows_N), past)
        hidden_MD = hidden_NTD[new_mask_NT.bool()]  # M: all real tokens, branch after branch
        next_M = torch.tensor([token for _, continuation in batch for token in continuation[1:]])
        tokens = []
        for part_D, part_next in zip(hidden_MD.split(LOGIT_ROWS), next_M.split(LOGIT_ROWS), strict=True):
            tokens += _log_p_and_argmax(lm.logits(part_D), part_next)
        for pair in batch:
            n = len(pair[1]) - 1
            tokens_by_pair[pair], tokens = tokens[:n], tokens[n:]
    return tokens_by_pair


def _log_p_and_argmax(logits_NV: Tensor, token_N: Tensor) -> list[tuple[float, int]]:
    """Returns the log p of each row's token, and the likeliest id."""
    log_p_N = logits_NV.gather(-1, token_N.to(logits_NV.device)[:, None])[:, 0] - logits_NV.logsumexp(-1)
    return list(zip(log_p_N.tolist(), logits_NV.argmax(-1).tolist(), strict=True))


def may_pad(lm: LM, continuations: Continuations, n_tokens: int) -> bool:
    """Tells whether padding may stand between the tokens of a row."""
    longest = max(map(len, continuations), default=0)
    after = max((len(continuation) for each in continuations.values() for continuation in each), default=0)
    return lm.capabilities.may_pad(2 * longest + max(after, n_tokens))  # prefix and remainder are padded separately
