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

from afteredit.edit.lm import LM, pad
from afteredit.edit.prefix import cache_of, keys_values

Ids = tuple[int, ...]
Wanted = Mapping[Ids, Collection[Ids]]  # by context, the continuations to score, each once
TOKEN_BUDGET = 4096  # tokens in one forward pass, padding included
LOGIT_ROWS = 512  # rows of logits held at once
SHARED_AT_LEAST = 16  # tokens that contexts must share before their prefix is worth a pass of its own


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
    """Contexts computed together: logits (B, V) behind each, the cache that holds them all, and its mask (B, P + T)."""

    contexts: list[Ids]
    logits_BV: Tensor
    cache: DynamicCache
    mask_BT: Tensor


@torch.no_grad()
def score(lm: LM, pairs: Sequence[tuple[Ids, Ids]]) -> list[Scored]:
    """For every (context, continuation), neither empty, in their order."""
    wanted: dict[Ids, dict[Ids, None]] = {}
    for context, continuation in pairs:
        wanted.setdefault(context, {})[continuation] = None
    results: dict[tuple[Ids, Ids], Scored] = {}
    for one in passes(lm, wanted):
        results |= score_pass(lm, one, wanted)
    return [results[pair] for pair in pairs]


def passes(lm: LM, wanted: Wanted, n_tokens: int = 0) -> Iterator[Pass]:
    """Every context in one pass, in batches with room for its continuations and for `n_tokens` to be generated."""
    for prefix, group in shared_prefixes(list(wanted)):
        cache = prefilled(lm, prefix)
        costs = {c: len(c) - len(prefix) + 2 * sum(map(len, wanted[c])) + n_tokens for c in group}
        for batch in packed(costs):
            yield _context_pass(lm, prefix, cache, batch)


def shared_prefixes(contexts: Sequence[Ids]) -> Iterator[tuple[Ids, list[Ids]]]:
    """(prefix, the contexts that begin with it), each context once; every context is longer than its prefix.

    Contexts that share nothing worth a pass of its own stand together, behind the empty prefix.
    """
    groups: dict[Ids, list[Ids]] = {}
    for context in contexts:
        groups.setdefault(context[:SHARED_AT_LEAST], []).append(context)
    alone: list[Ids] = []
    for group in groups.values():
        shortest, longest = min(group), max(group)  # the first and last in order share the least
        n = 0
        while n < min(map(len, group)) - 1 and shortest[n] == longest[n]:
            n += 1
        if len(group) > 1 and n >= SHARED_AT_LEAST:
            yield group[0][:n], group
        else:
            alone += group
    if alone:
        yield (), alone


def packed(costs: Mapping[Ids, int]) -> Iterator[list[Ids]]:
    """Batches of contexts of similar cost (tokens), whose padded size stays within the token budget, dearest first."""
    batch: list[Ids] = []
    for context in sorted(costs, key=lambda c: (costs[c], c), reverse=True):
        if batch and costs[batch[0]] * (len(batch) + 1) > TOKEN_BUDGET:
            yield batch
            batch = []
        batch.append(context)
    if batch:
        yield batch


@torch.no_grad()
def prefilled(lm: LM, prefix: Ids) -> DynamicCache | None:
    """Keys and values of one row of tokens."""
    if not prefix:
        return None
    cache = DynamicCache()
    ids_1T = torch.tensor([prefix])
    lm.forward(ids_1T, torch.ones_like(ids_1T), cache)
    return cache


def rows_of(cache: DynamicCache | None, rows_B: Tensor) -> DynamicCache:
    """A cache of its own that holds the given rows of another."""
    pairs = keys_values(cache) if cache is not None else []
    return cache_of((keys[rows_B.to(keys.device)], values[rows_B.to(keys.device)]) for keys, values in pairs)


@torch.no_grad()
def _context_pass(lm: LM, prefix: Ids, cache: DynamicCache | None, contexts: list[Ids]) -> Pass:
    ids_BT, own_mask_BT = pad([context[len(prefix) :] for context in contexts], "right")
    mask_BT = torch.cat([torch.ones(len(contexts), len(prefix), dtype=torch.long), own_mask_BT], dim=1)
    extended = rows_of(cache, torch.zeros(len(contexts), dtype=torch.long))
    hidden_BTD = lm.forward(ids_BT, mask_BT, extended, len(prefix))
    last_B = own_mask_BT.sum(-1) - 1
    return Pass(contexts, lm.logits(hidden_BTD[torch.arange(len(contexts)), last_B]), extended, mask_BT)


@torch.no_grad()
def score_pass(lm: LM, one: Pass, wanted: Wanted) -> dict[tuple[Ids, Ids], Scored]:
    """Every wanted (context, continuation) of one pass, which is left as it was."""
    first_BV = one.logits_BV.log_softmax(-1)
    said_B = first_BV.argmax(-1).tolist()
    longer = [(row, cont) for row, context in enumerate(one.contexts) for cont in wanted[context] if len(cont) > 1]
    rest = _later_tokens(lm, one, longer) if longer else {}
    results = {}
    for row, context in enumerate(one.contexts):
        for continuation in wanted[context]:
            log_p, said = rest.get((row, continuation), ((), ()))
            first = float(first_BV[row, continuation[0]])
            results[context, continuation] = Scored((first, *log_p), (said_B[row], *said))
    return results


def _later_tokens(
    lm: LM, one: Pass, longer: list[tuple[int, Ids]]
) -> dict[tuple[int, Ids], tuple[tuple[float, ...], Ids]]:
    """log p and said ids of every continuation's tokens but the first: each continuation is a branch of its context."""
    rows_N = torch.tensor([row for row, _ in longer])
    ids_NT, own_mask_NT = pad([continuation[:-1] for _, continuation in longer], "right")
    branches = rows_of(one.cache, rows_N.to(lm.device))
    mask_NT = torch.cat([one.mask_BT[rows_N], own_mask_NT], dim=1)
    hidden_NTD = lm.forward(ids_NT, mask_NT, branches, one.mask_BT.shape[1])
    hidden_MD = hidden_NTD[own_mask_NT.bool()]  # M: all real tokens, branch after branch
    next_M = torch.tensor([token for _, continuation in longer for token in continuation[1:]])
    log_p: list[float] = []
    said: list[int] = []
    for part_D, part_next in zip(hidden_MD.split(LOGIT_ROWS), next_M.split(LOGIT_ROWS), strict=True):
        log_p_V = lm.logits(part_D).log_softmax(-1)
        log_p += log_p_V.gather(-1, part_next.to(log_p_V.device)[:, None])[:, 0].tolist()
        said += log_p_V.argmax(-1).tolist()
    result, at = {}, 0
    for key in longer:
        n = len(key[1]) - 1
        result[key] = (tuple(log_p[at : at + n]), tuple(said[at : at + n]))
        at += n
    return result
