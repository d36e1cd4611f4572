"""Token rows read once each, and what several of them begin with alike once for all."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn.functional import pad as pad_tensor
from transformers import DynamicCache

from afteredit.model.kv_cache import FrozenLayer, cache_of, keys_values, of_rows
from afteredit.model.lm import LM
from afteredit.model.tensors import pad

Row = tuple[int, ...]
Past = tuple[list[tuple[Tensor, Tensor]], Tensor]  # keys and values by block, and the mask, padded on the left


@dataclass(frozen=True)
class Beginnings:
    """What rows begin with: the keys and values of every block, and the mask (H, P), padded on the left."""

    rows: list[Row]
    pairs: list[tuple[Tensor, Tensor]]
    mask_HP: Tensor

    def longest_of(self, row: Row) -> Row:
        """The longest that `row` begins with; nothing where it begins with none."""
        return max((head for head in self.rows if row[: len(head)] == head), key=len, default=())


AT_ONCE = 32  # tails of one pass: those of like length go together, padded by little

_kept: WeakKeyDictionary[LM, Beginnings] = WeakKeyDictionary()


def run_once(lm: LM, rows: Sequence[Row], heads: Sequence[Row] = ()) -> tuple[DynamicCache, Tensor]:
    """Every block's frozen keys and values of `rows`, padded on the left, and their mask (B, P).

    Rows that are the same are run once (U are distinct), and so is what they begin with alike (a context prefix, under
    which several requests stand), where that saves a quarter of the columns.  `heads` are what rows of many calls begin
    with: while the model is unedited, they are run once for all calls in a row that name the same ones, and what rows
    have in common beyond them is not looked for.
    """
    distinct = list(dict.fromkeys(rows))
    begun = _kept_beginnings(lm, heads) if heads else None
    starts = _shared_beginnings(distinct) if begun is None else list(map(begun.longest_of, distinct))
    tails = [row[len(start) :] for row, start in zip(distinct, starts, strict=True)]
    to_run = [[tails[row] for row in part] for part in _of_like_length(tails)] + ([] if begun else [set(starts)])
    if sum(map(_size, to_run)) > 0.75 * _size(distinct):
        pairs, mask_UP = _run(lm, distinct)
    else:
        pairs, mask_UP = _run_behind(lm, begun or _begin(lm, starts), starts, tails)
    of_row_B = _places(rows, distinct)
    return cache_of(of_rows(pairs, of_row_B, len(distinct), {}), FrozenLayer), mask_UP[of_row_B]


def _kept_beginnings(lm: LM, rows: Sequence[Row]) -> Beginnings | None:
    """Of `rows`, and of nothing, always read together: the same bits, whoever asks first.  None where the model is
    edited, and what was kept is let go."""
    if not lm.weights.is_unedited():
        _kept.pop(lm, None)
        return None
    rows = list(dict.fromkeys([(), *rows]))
    if lm not in _kept or _kept[lm].rows != rows:
        _kept[lm] = _begin(lm, rows)
    return _kept[lm]


def _begin(lm: LM, rows: Sequence[Row]) -> Beginnings:
    different = list(dict.fromkeys(rows))
    return Beginnings(different, *_run(lm, different))


def _run(lm: LM, rows: Sequence[Row]) -> Past:
    ids_BP, mask_BP = pad(rows, "left")
    cache = DynamicCache()
    lm.forward(ids_BP, mask_BP, cache)
    return keys_values(cache), mask_BP


def _run_behind(lm: LM, begun: Beginnings, heads: Sequence[Row], tails: Sequence[Row]) -> Past:
    """Each tail behind its head."""
    parts = _of_like_length(tails)
    found = [_run_part(lm, begun, [heads[row] for row in part], [tails[row] for row in part]) for part in parts]
    width = max(mask_NP.shape[1] for _, mask_NP in found)
    back_U = torch.tensor([row for part in parts for row in part]).argsort()

    def joined(of_parts: Iterable[Tensor]) -> Tensor:  # columns are the last but one dimension
        return torch.cat([pad_tensor(part, (0, 0, width - part.shape[-2], 0)) for part in of_parts])[back_U]

    of_blocks = zip(*(pairs for pairs, _ in found), strict=True)
    pairs = [(joined(keys for keys, _ in block), joined(values for _, values in block)) for block in of_blocks]
    return pairs, joined(mask_NP[..., None] for _, mask_NP in found)[..., 0]


def _run_part(lm: LM, begun: Beginnings, heads: Sequence[Row], tails: Sequence[Row]) -> Past:
    of_row_N = _places(heads, begun.rows)
    pairs, mask_NP = of_rows(begun.pairs, of_row_N, len(begun.rows), {}), begun.mask_HP[of_row_N]
    if any(tails):
        cache = cache_of(pairs)
        ids_NT, mask_NT = pad(tails, "right")
        mask_NP = torch.cat([mask_NP, mask_NT], dim=1)
        lm.forward(ids_NT, mask_NP, cache, begun.mask_HP.shape[1])
        pairs = keys_values(cache)
    # moved to the right, so that what follows follows closely: windows count columns, not positions
    n_behind_N = mask_NP.flip(1).argmax(1)  # columns of padding behind each row's last token
    columns_NP = torch.arange(mask_NP.shape[1]) - n_behind_N[:, None]
    columns_NP = columns_NP[:, -int(mask_NP.sum(1).max()) :] % mask_NP.shape[1]
    rows_N1 = torch.arange(len(tails))[:, None]

    def moved(of_columns: Tensor) -> Tensor:
        return of_columns.transpose(1, 2)[rows_N1, columns_NP].transpose(1, 2)

    return [(moved(keys), moved(values)) for keys, values in pairs], mask_NP.gather(1, columns_NP)


def _of_like_length(tails: Sequence[Row]) -> list[list[int]]:
    order = sorted(range(len(tails)), key=lambda row: len(tails[row]))
    return [order[i : i + AT_ONCE] for i in range(0, len(order), AT_ONCE)]


def _places(rows: Sequence[Row], distinct: Sequence[Row]) -> Tensor:
    """Where each of `rows` stands among the distinct ones."""
    place = {row: i for i, row in enumerate(distinct)}
    return torch.tensor([place[row] for row in rows])


def _size(rows: Collection[Sequence[int]]) -> int:
    """Rows times columns, padded."""
    return len(rows) * max(map(len, rows))


def _shared_beginnings(rows: Sequence[Row]) -> list[Row]:
    """Of each row the longest beginning that some other row has too."""
    ordered = sorted(range(len(rows)), key=rows.__getitem__)  # the most alike stand side by side
    n_shared = [0] * len(rows)
    for one, other in pairwise(ordered):
        pairs = zip(rows[one], rows[other], strict=False)
        n = sum(1 for _ in takewhile(lambda ids: ids[0] == ids[1], pairs))
        n_shared[one], n_shared[other] = max(n_shared[one], n), max(n_shared[other], n)
    return [row[:n] for row, n in zip(rows, n_shared, strict=True)]
