"""Runs many token rows at the cost of the distinct ones, and what several of them begin with only once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile

import torch
from torch import Tensor
from torch.nn.functional import pad as pad_tensor
from transformers import DynamicCache

from afteredit.model.kv_cache import FrozenLayer, KeysValues, cache_of, keys_values, select_rows
from afteredit.model.tensors import pad

Row = tuple[int, ...]
Run = tuple[list[KeysValues], Tensor]  # keys and values by block, and the mask, padded on the left

AT_ONCE = 32  # tails of one pass: those of similar length go together, so that little is padding


@dataclass(frozen=True)
class Beginnings:
    """Holds the keys and values of every block, and the mask (H, P), of token rows that others begin with."""

    rows: list[Row]
    blocks: list[KeysValues]
    mask_HP: Tensor

    def longest_of(self, row: Row) -> Row:
        """Returns the longest beginning of `row` among these, or the empty row."""
        return max((start for start in self.rows if row[: len(start)] == start), key=len, default=())


class SharedBeginnings:
    """Runs token rows of one model, and keeps what rows of many calls begin with while the model is unedited."""

    def __init__(self, forward: Callable[..., Tensor], is_unedited: Callable[[], bool]):
        self._forward, self._is_unedited = forward, is_unedited
        self.kept: Beginnings | None = None

    def run(self, rows: Sequence[Row], beginnings: Sequence[Row] = ()) -> tuple[DynamicCache, Tensor]:
        """Returns every block's frozen keys and values of `rows`, padded on the left, and their mask (B, P).

        Equal rows are run once (U are distinct), and so is a beginning that several share (a context prefix, under
        which several requests stand), where that saves a quarter of the columns.  `beginnings` are those that rows of
        many calls share: while the model is unedited, they are run once for all successive calls that name the same
        ones, and no other shared beginnings are looked for.
        """
        distinct = list(dict.fromkeys(rows))
        known = self._kept_beginnings(beginnings) if beginnings else None
        starts = _shared_by_two(distinct) if known is None else list(map(known.longest_of, distinct))
        tails = [row[len(start) :] for row, start in zip(distinct, starts, strict=True)]
        to_run = [[tails[i] for i in part] for part in _of_similar_length(tails)] + ([] if known else [set(starts)])
        if sum(map(_size, to_run)) > 0.75 * _size(distinct):
            blocks, mask_UP = self._run_plainly(distinct)
        else:
            blocks, mask_UP = self._run_tails(known or self._begin(starts), starts, tails)
        place_B = _places(rows, distinct)
        return cache_of(select_rows(blocks, place_B, len(distinct)), FrozenLayer), mask_UP[place_B]

    def _kept_beginnings(self, rows: Sequence[Row]) -> Beginnings | None:
        """Returns the beginnings `rows` and the empty one, run in one pass always, so that the bits are the same
        whoever asks first; or None where the model is edited."""
        if not self._is_unedited():
            self.kept = None
            return None
        rows = list(dict.fromkeys([(), *rows]))
        if self.kept is None or self.kept.rows != rows:
            self.kept = self._begin(rows)
        return self.kept

    def _begin(self, rows: Sequence[Row]) -> Beginnings:
        distinct = list(dict.fromkeys(rows))
        return Beginnings(distinct, *self._run_plainly(distinct))

    def _run_plainly(self, rows: Sequence[Row]) -> Run:
        ids_BP, mask_BP = pad(rows, "left")
        cache = DynamicCache()
        self._forward(ids_BP, mask_BP, cache)
        return keys_values(cache), mask_BP

    def _run_tails(self, beginnings: Beginnings, starts: Sequence[Row], tails: Sequence[Row]) -> Run:
        """Runs each tail after its start, in passes of similar length."""
        parts = _of_similar_length(tails)
        runs = [self._run_part(beginnings, [starts[i] for i in part], [tails[i] for i in part]) for part in parts]
        width = max(mask_NP.shape[1] for _, mask_NP in runs)
        back_U = torch.tensor([i for part in parts for i in part]).argsort()

        def joined(tensors: Iterable[Tensor]) -> Tensor:  # columns are the last dimension but one
            return torch.cat([pad_tensor(part, (0, 0, width - part.shape[-2], 0)) for part in tensors])[back_U]

        of_blocks = zip(*(blocks for blocks, _ in runs), strict=True)
        blocks = [(joined(keys for keys, _ in block), joined(values for _, values in block)) for block in of_blocks]
        return blocks, joined(mask_NP[..., None] for _, mask_NP in runs)[..., 0]

    def _run_part(self, beginnings: Beginnings, starts: Sequence[Row], tails: Sequence[Row]) -> Run:
        place_N = _places(starts, beginnings.rows)
        blocks = select_rows(beginnings.blocks, place_N, len(beginnings.rows))
        mask_NP = beginnings.mask_HP[place_N]
        if any(tails):
            cache = cache_of(blocks)
            ids_NT, mask_NT = pad(tails, "right")
            mask_NP = torch.cat([mask_NP, mask_NT], dim=1)
            self._forward(ids_NT, mask_NP, cache, beginnings.mask_HP.shape[1])
            blocks = keys_values(cache)
        return _moved_right(blocks, mask_NP)


def _moved_right(blocks: Sequence[KeysValues], mask_NP: Tensor) -> Run:
    """Moves every row to the right end, so that what follows it follows closely: windows count columns, not
    positions."""
    n_padding_N = mask_NP.flip(1).argmax(1)  # columns of padding after each row's last token
    columns_NP = torch.arange(mask_NP.shape[1]) - n_padding_N[:, None]
    columns_NP = columns_NP[:, -int(mask_NP.sum(1).max()) :] % mask_NP.shape[1]
    rows_N1 = torch.arange(len(mask_NP))[:, None]

    def moved(of_columns: Tensor) -> Tensor:
        return of_columns.transpose(1, 2)[rows_N1, columns_NP].transpose(1, 2)

    return [(moved(keys), moved(values)) for keys, values in blocks], mask_NP.gather(1, columns_NP)


def _of_similar_length(tails: Sequence[Row]) -> list[list[int]]:
    order = sorted(range(len(tails)), key=lambda i: len(tails[i]))
    return [order[i : i + AT_ONCE] for i in range(0, len(order), AT_ONCE)]


def _places(rows: Sequence[Row], distinct: Sequence[Row]) -> Tensor:
    """Returns the index (B,) of each of `rows` among the distinct ones."""
    place = {row: i for i, row in enumerate(distinct)}
    return torch.tensor([place[row] for row in rows])


def _size(rows: Collection[Sequence[int]]) -> int:
    """Returns rows times columns, padding included."""
    return len(rows) * max(map(len, rows))


def _shared_by_two(rows: Sequence[Row]) -> list[Row]:
    """Returns for each row its longest beginning that some other row has too."""
    ordered = sorted(range(len(rows)), key=rows.__getitem__)  # rows with the longest common beginning are neighbours
    n_shared = [0] * len(rows)
    for i, j in pairwise(ordered):
        pairs = zip(rows[i], rows[j], strict=False)
        n = sum(1 for _ in takewhile(lambda ids: ids[0] == ids[1], pairs))
        n_shared[i], n_shared[j] = max(n_shared[i], n), max(n_shared[j], n)
    return [row[:n] for row, n in zip(rows, n_shared, strict=True)]
