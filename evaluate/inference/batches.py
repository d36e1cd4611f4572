"""Chooses which token rows are computed together: alike beginnings once, similar lengths side by side."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Ids = tuple[int, ...]
Row = TypeVar("Row", bound=Hashable)

TOKEN_BUDGET = 1024  # tokens in one forward pass, padding included
CACHE_BUDGET = 16384  # columns, over all rows of a pass, whose keys and values are held at once
PASS_TOKENS = 24  # the cost of a forward pass besides its tokens, in tokens (SmolLM2 on one core)
SHARED_AT_LEAST = 16  # tokens that contexts must share before their prefix is worth a row of its own


@dataclass(frozen=True, order=True)
class RowSize:
    """Holds the number of tokens that a pass computes of a row, and of the columns that the row needs in all."""

    tokens: int
    columns: int


def shared_prefixes(contexts: Sequence[Ids]) -> Iterator[tuple[Ids, list[Ids]]]:
    """Yields (prefix, the contexts that begin with it), each context once; every context is longer than its prefix.

    Contexts that share nothing worth a row of its own stand together under the empty prefix.
    """
    groups: dict[Ids, list[Ids]] = {}
    for context in contexts:
        groups.setdefault(context[:SHARED_AT_LEAST], []).append(context)
    without_prefix: list[Ids] = []
    for group in groups.values():
        lowest, highest = min(group), max(group)  # the first and last in order share the least
        n = 0
        while n < min(map(len, group)) - 1 and lowest[n] == highest[n]:
            n += 1
        if len(group) > 1 and n >= SHARED_AT_LEAST:
            yield group[0][:n], group
        else:
            without_prefix += group
    if without_prefix:
        yield (), without_prefix


def cheapest_batches(sizes: Mapping[Row, RowSize], *, padding: bool = True, n_passes: int = 1) -> list[list[Row]]:
    """Returns the batches that compute the fewest tokens, longest rows first.

    The cost of a batch is its tokens with padding, and PASS_TOKENS for each of its `n_passes` (its first pass and those
    that read on after it).  A batch stays within both budgets, unless it is one row that is beyond them alone.
    Without `padding` only rows of one length stand together.

    The least cost of the first j rows is the minimum over i of that of the first i rows and one batch of the others.
    """
    rows = sorted(sizes, key=lambda row: sizes[row], reverse=True)
    overhead = n_passes * PASS_TOKENS
    least_cost, last_start = [0], [0]  # by number of rows: the least cost, and where its last batch begins
    for j in range(1, len(rows) + 1):
        least_cost.append(least_cost[j - 1] + overhead + sizes[rows[j - 1]].tokens)
        last_start.append(j - 1)
        columns = sizes[rows[j - 1]].columns
        for i in range(j - 2, -1, -1):
            tokens, columns = (j - i) * sizes[rows[i]].tokens, max(columns, sizes[rows[i]].columns)
            if tokens > TOKEN_BUDGET or (j - i) * columns > CACHE_BUDGET:
                break
            if not padding and sizes[rows[i]].tokens != sizes[rows[j - 1]].tokens:
                break
            if least_cost[i] + overhead + tokens < least_cost[j]:
                least_cost[j], last_start[j] = least_cost[i] + overhead + tokens, i
    batches, j = [], len(rows)
    while j:
        batches.append(rows[last_start[j] : j])
        j = last_start[j]
    return batches[::-1]
