"""Which token rows are computed together: alike beginnings once, similar lengths side by side."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Ids = tuple[int, ...]
Row = TypeVar("Row", bound=Hashable)

TOKEN_BUDGET = 1024  # tokens in one forward pass, padding included
CACHE_BUDGET = 16384  # columns, over all rows of a pass, whose keys and values are held at once
PASS_TOKENS = 24  # what a forward pass costs besides its tokens, in tokens (SmolLM2 on one core)
SHARED_AT_LEAST = 16  # tokens that contexts must share before their prefix is worth a row of its own


@dataclass(frozen=True, order=True)
class Size:
    """Of a row in a pass: tokens that the pass computes, and columns that it needs in all, before and after."""

    tokens: int
    columns: int


def shared_prefixes(contexts: Sequence[Ids]) -> Iterator[tuple[Ids, list[Ids]]]:
    """(prefix, the contexts that begin with it), each context once; every context is longer than its prefix.

    Contexts that share nothing worth a row of its own stand together, behind the empty prefix.
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


def packed(sizes: Mapping[Row, Size], *, padded: bool = True, n_passes: int = 1) -> list[list[Row]]:
    """The batches that compute the fewest tokens: padding, and PASS_TOKENS for each of a batch's `n_passes` (its own
    and those that will read on behind it), included.

    Longest rows first; within the two budgets, except for a row that is beyond them alone.  Not `padded`: only rows of
    one length stand together.  Least cost of the first j rows: min over i of that of the first i + one batch of the
    rest.
    """
    rows = sorted(sizes, key=lambda row: sizes[row], reverse=True)
    overhead = n_passes * PASS_TOKENS
    best, start = [0], [0]  # by number of rows: the least cost, and where its last batch begins
    for j in range(1, len(rows) + 1):
        best.append(best[j - 1] + overhead + sizes[rows[j - 1]].tokens)
        start.append(j - 1)
        columns = sizes[rows[j - 1]].columns
        for i in range(j - 2, -1, -1):
            tokens, columns = (j - i) * sizes[rows[i]].tokens, max(columns, sizes[rows[i]].columns)
            if tokens > TOKEN_BUDGET or (j - i) * columns > CACHE_BUDGET:
                break
            if not padded and sizes[rows[i]].tokens != sizes[rows[j - 1]].tokens:
                break
            if best[i] + overhead + tokens < best[j]:
                best[j], start[j] = best[i] + overhead + tokens, i
    batches, j = [], len(rows)
    while j:
        batches.append(rows[start[j] : j])
        j = start[j]
    return batches[::-1]
