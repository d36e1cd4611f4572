"""Log-likelihoods of continuations, with everything that is shared computed once.

Three levels share: requests whose contexts begin alike (a few-shot prefix) share that prefix; continuations of one
context share the context; single-token continuations need nothing beyond the context's last logits.  The result is that
of one plain forward pass per request (a test holds the two against each other).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from afteredit.evaluate.inference.batches import Ids, Size, packed, shared_prefixes
from afteredit.evaluate.inference.kept_blocks import BaseBlocks, Forward
from afteredit.model.decoding import Prompts
from afteredit.model.kv_cache import cache_of, keys_values
from afteredit.model.lm import LM
from afteredit.model.tensors import pad

Wanted = Mapping[Ids, Collection[Ids]]  # by context, the continuations to score, each once
LOGIT_ROWS = 512  # rows of logits held at once


@dataclass(frozen=True)
class Scored:
    """One continuation: log p of each of its tokens (nats), and the ids the model would have said instead."""

    log_p: tuple[float, ...]
    said: Ids

    @property
    def nll(self) -> float:
        """Nats, mean per token."""
        return -sum(self.log_p) / len(self.log_p)


@dataclass(frozen=True)
class Pass:
    """Token rows read together to their ends; `forward` reads on."""

    rows: list[Ids]
    prompts: Prompts
    forward: Forward


@torch.no_grad()
def score(lm: LM, pairs: Sequence[tuple[Ids, Ids]], base: BaseBlocks | None = None) -> list[Scored]:
    """For every (context, continuation), neither empty, in their order."""
    wanted: dict[Ids, dict[Ids, None]] = {}
    for context, continuation in pairs:
        wanted.setdefault(context, {})[continuation] = None
    results: dict[tuple[Ids, Ids], Scored] = {}
    for one in passes(lm, wanted, base=base):
        results |= score_pass(lm, one, wanted)
    return [results[pair] for pair in pairs]


@torch.no_grad()
def passes(lm: LM, wanted: Wanted, n_tokens: int = 0, base: BaseBlocks | None = None) -> Iterator[Pass]:
    """Every context in one pass, in batches with room for its continuations and for `n_tokens` to be generated."""
    base = BaseBlocks(lm, 0.0) if base is None else base
    padded = may_pad(lm, wanted, n_tokens)
    ends = {c: len(c) + max(n_tokens, 1, *map(len, own)) for c, own in wanted.items()}
    n_passes = 1 + any(len(continuation) > 1 for own in wanted.values() for continuation in own)
    begin_alike = dict(shared_prefixes(list(wanted)))
    for parent in _prefix_passes(lm, list(begin_alike), padded, 1 + n_passes, base):
        prefix_of = {context: prefix for prefix in parent.rows for context in begin_alike[prefix]}
        past = parent.prompts.mask_BT.shape[1]
        sizes = {c: Size(len(c) - len(prefix), past + ends[c] - len(prefix)) for c, prefix in prefix_of.items()}
        for batch in packed(sizes, padded=padded, n_passes=n_passes):
            named = (tuple(parent.rows), tuple((context, tuple(wanted[context])) for context in batch), n_tokens > 0)
            with base.tape(named) as forward:
                yield _read(lm, forward, parent, {c: prefix_of[c] for c in batch}, goes_on=n_tokens > 0)


def _prefix_passes(lm: LM, prefixes: list[Ids], padded: bool, n_passes: int, base: BaseBlocks) -> Iterator[Pass]:
    """The empty prefix, which takes no computing, where it is among the prefixes; the others in batches."""
    nothing = Prompts(torch.zeros(1, 0), DynamicCache(), torch.zeros(1, 0, dtype=torch.long))
    root = Pass([()], nothing, base.plain)
    if () in prefixes:
        yield root
    sizes = {prefix: Size(len(prefix), len(prefix)) for prefix in prefixes if prefix}
    for batch in packed(sizes, padded=padded, n_passes=n_passes):
        with base.tape(tuple(batch)) as forward:
            parent = _read(lm, forward, root, dict.fromkeys(batch, ()), goes_on=True)
        yield parent


def _read(lm: LM, forward: Forward, parent: Pass, prefix_of: dict[Ids, Ids], *, goes_on: bool) -> Pass:
    """Rows, each read from the end of its prefix, a row of `parent`, to its own."""
    rows = list(prefix_of)
    of_row_B = torch.tensor([parent.rows.index(prefix) for prefix in prefix_of.values()])
    past_mask_BP = parent.prompts.mask_BT[of_row_B]
    ids_BT, own_mask_BT = pad([row[len(prefix) :] for row, prefix in prefix_of.items()], "right")
    mask_BT = torch.cat([past_mask_BP, own_mask_BT], dim=1)
    cache = rows_of(parent.prompts.cache, of_row_B)
    hidden_BTD = forward(ids_BT, mask_BT, cache, past_mask_BP.shape[1], goes_on=goes_on)
    logits_BV = lm.logits(hidden_BTD[torch.arange(len(rows)), own_mask_BT.sum(-1) - 1])
    return Pass(rows, Prompts(logits_BV, cache, mask_BT), forward)


def rows_of(cache: DynamicCache, rows_B: Tensor) -> DynamicCache:
    """A cache of its own that holds the given rows of another."""
    return cache_of(
        (keys[rows_B.to(keys.device)], values[rows_B.to(keys.device)]) for keys, values in keys_values(cache)
    )


@torch.no_grad()
def score_pass(lm: LM, one: Pass, wanted: Wanted) -> dict[tuple[Ids, Ids], Scored]:
    """Every wanted (context, continuation) of one pass, which is left as it was."""
    keys = [(row, continuation) for row, context in enumerate(one.rows) for continuation in wanted[context]]
    if not keys:
        return {}
    rows_N, first_N = torch.tensor([row for row, _ in keys]), torch.tensor([cont[0] for _, cont in keys])
    firsts = _judged(one.prompts.logits_BV[rows_N.to(one.prompts.logits_BV.device)], first_N)
    rest = _later_tokens(lm, one, [key for key in keys if len(key[1]) > 1])
    results = {}
    for (row, continuation), (log_p, said) in zip(keys, firsts, strict=True):
        later = rest.get((row, continuation), [])
        results[one.rows[row], continuation] = Scored(
            (log_p, *(log_p for log_p, _ in later)), (said, *(said for _, said in later))
        )
    return results


def _later_tokens(lm: LM, one: Pass, longer: list[tuple[int, Ids]]) -> dict[tuple[int, Ids], list[tuple[float, int]]]:
    """(log p, said id) of every continuation's tokens but the first: each continuation is a branch of its context."""
    past = one.prompts.mask_BT.shape[1]
    result = {}
    for batch in packed({key: Size(len(key[1]) - 1, past + len(key[1]) - 1) for key in longer}):
        rows_N = torch.tensor([row for row, _ in batch])
        ids_NT, own_mask_NT = pad([continuation[:-1] for _, continuation in batch], "right")
        mask_NT = torch.cat([one.prompts.mask_BT[rows_N], own_mask_NT], dim=1)
        hidden_NTD = one.forward(ids_NT, mask_NT, rows_of(one.prompts.cache, rows_N), past)
        hidden_MD = hidden_NTD[own_mask_NT.bool()]  # M: all real tokens, branch after branch
        next_M = torch.tensor([token for _, continuation in batch for token in continuation[1:]])
        judged = []
        for part_D, part_next in zip(hidden_MD.split(LOGIT_ROWS), next_M.split(LOGIT_ROWS), strict=True):
            judged += _judged(lm.logits(part_D), part_next)
        for key in batch:
            n = len(key[1]) - 1
            result[key], judged = judged[:n], judged[n:]
    return result


def _judged(logits_NV: Tensor, token_N: Tensor) -> list[tuple[float, int]]:
    """log p of each row's token, and the likeliest id."""
    log_p_N = logits_NV.gather(-1, token_N.to(logits_NV.device)[:, None])[:, 0] - logits_NV.logsumexp(-1)
    return list(zip(log_p_N.tolist(), logits_NV.argmax(-1).tolist(), strict=True))


def may_pad(lm: LM, wanted: Wanted, n_tokens: int) -> bool:
    """May padding stand between the tokens of a row?"""
    longest = max(map(len, wanted), default=0)
    behind = max((len(continuation) for own in wanted.values() for continuation in own), default=0)
    return lm.capabilities.may_pad(2 * longest + max(behind, n_tokens))  # a prefix and what follows it are padded apart
