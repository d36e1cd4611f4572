"""Chooses which token rows are computed together: alike beginnings once, similar lengths side by side."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Ids = tuple[int, ...]
Row = TypeVar("Row", bound=Hashable)

# On a CPU; budgets.py has an accelerator's.
TOKEN_BUDGET = 1024  # tokens in one forward pass, padding included
CACHE_BUDGET = 16384  # columns, over all rows of a pass, whose keys and values are held at once
PASS_TOKENS = 24  # the cost of a forward pass besides its tokens, in tokens (SmolLM2 on one core)
SHARED_AT_LEAST = 16  # tokens that contexts must share before their prefix is worth a row of its own


@dataclass(frozen=True)
class Budgets:
    """Holds the most tokens of a pass, the most columns held at once, and what a pass costs besides its tokens."""

    tokens: int
    columns: int
    pass_tokens: int


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


def batches_of_like_length(
    sizes: Mapping[Row, RowSize], within: Budgets | None = None, *, padding: bool = True, n_passes: int = 1
) -> list[list[Row]]:
    """Returns batches of rows of like length, longest rows first; `within` is by default a CPU's budgets.

    A row joins the last batch where both budgets hold and the padding of that batch costs no more than a batch more:
    `pass_tokens` for each of its `n_passes` (its first pass and those that read on after it).  A row that is beyond the
    budgets stands alone.  Without `padding` only rows of one length stand together.
    """
    within = within or Budgets(TOKEN_BUDGET, CACHE_BUDGET, PASS_TOKENS)
    most_padding = n_passes * within.pass_tokens if padding else 0
    batches: list[list[Row]] = []
    batch_sizes: list[RowSize] = []  # of the last batch
    for row in sorted(sizes, key=lambda row: sizes[row], reverse=True):
        batch_sizes.append(sizes[row])
        tokens = len(batch_sizes) * batch_sizes[0].tokens
        columns = len(batch_sizes) * max(size.columns for size in batch_sizes)
        n_padding = tokens - sum(size.tokens for size in batch_sizes)
        if batches and tokens <= within.tokens and columns <= within.columns and n_padding <= most_padding:
            batches[-1].append(row)
        else:
            batches.append([row])
            batch_sizes = [sizes[row]]
    return batches
