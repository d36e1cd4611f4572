"""Token rows read once each, and what several of them begin with alike once for all."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise, takewhile

import torch
from torch import Tensor
from transformers import DynamicCache

from afteredit.edit.keys_values import FrozenLayer, cache_of, keys_values, of_rows
from afteredit.edit.lm import LM, pad


def run_once(lm: LM, rows: Sequence[tuple[int, ...]]) -> tuple[DynamicCache, Tensor]:
    """Every block's frozen keys and values of `rows`, padded on the left, and their mask (B, P).

    Rows that are the same are run once (U are distinct), and so is what they begin with alike (a context prefix, under
    which several requests stand), where that saves a quarter of the columns.
    """
    distinct = list(dict.fromkeys(rows))
    heads = _shared_beginnings(distinct)
    tails = [row[len(head) :] for row, head in zip(distinct, heads, strict=True)]
    if _size(set(heads)) + _size(tails) > 0.75 * _size(distinct):
        pairs, mask_UP = _run(lm, distinct)
    else:
        pairs, mask_UP = _run_behind(lm, heads, tails)
    of_row_B = _places(rows, distinct)
    return cache_of(of_rows(pairs, of_row_B, len(distinct), {}), FrozenLayer), mask_UP[of_row_B]


def _run(lm: LM, rows: Sequence[Sequence[int]]) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    ids_BP, mask_BP = pad(rows, "left")
    cache = DynamicCache()
    lm.forward(ids_BP, mask_BP, cache)
    return keys_values(cache), mask_BP


def _run_behind(
    lm: LM, heads: Sequence[tuple[int, ...]], tails: Sequence[Sequence[int]]
) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    """Each tail behind its head, of which those that are the same are run once."""
    distinct = list(dict.fromkeys(heads))
    pairs, mask_HP = _run(lm, distinct)
    of_row_U = _places(heads, distinct)
    cache = cache_of(of_rows(pairs, of_row_U, len(distinct), {}))
    ids_UT, mask_UT = pad(tails, "right")
    mask_UP = torch.cat([mask_HP[of_row_U], mask_UT], dim=1)
    lm.forward(ids_UT, mask_UP, cache, mask_HP.shape[1])
    # moved to the right, so that what follows follows closely: windows count columns, not positions
    columns_UP = torch.arange(mask_UP.shape[1]) - (mask_UT == 0).sum(1, keepdim=True)
    columns_UP = columns_UP[:, -int(mask_UP.sum(1).max()) :] % mask_UP.shape[1]
    rows_U1 = torch.arange(len(tails))[:, None]

    def moved(of_columns: Tensor) -> Tensor:
        return of_columns.transpose(1, 2)[rows_U1, columns_UP].transpose(1, 2)

    return [(moved(keys), moved(values)) for keys, values in keys_values(cache)], mask_UP.gather(1, columns_UP)


def _places(rows: Sequence[tuple[int, ...]], distinct: Sequence[tuple[int, ...]]) -> Tensor:
    """Where each of `rows` stands among the distinct ones."""
    place = {row: i for i, row in enumerate(distinct)}
    return torch.tensor([place[row] for row in rows])


def _size(rows: Collection[Sequence[int]]) -> int:
    """Rows times columns, padded."""
    return len(rows) * max(map(len, rows))


def _shared_beginnings(rows: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Of each row the longest beginning that some other row has too."""
    ordered = sorted(range(len(rows)), key=rows.__getitem__)  # the most alike stand side by side
    n_shared = [0] * len(rows)
    for one, other in pairwise(ordered):
        pairs = zip(rows[one], rows[other], strict=False)
        n = sum(1 for _ in takewhile(lambda ids: ids[0] == ids[1], pairs))
        n_shared[one], n_shared[other] = max(n_shared[one], n), max(n_shared[other], n)
    return [row[:n] for row, n in zip(rows, n_shared, strict=True)]
