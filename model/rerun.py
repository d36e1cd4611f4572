"""Runs again only what an offset at the subject's last token can change.

By causality an offset added to the MLP output of block L at position s moves neither anything before s nor anything
below L.  So the keys and values of all positions before s are computed once, and so are the hidden states that enter
block L at the positions from s on.  Each step of an optimisation runs blocks L, L+1, … on those few positions.

The mathematics is that of the full forward pass (a test holds the two against each other).  A probe tries once on every
model whether this holds for its blocks; where it does not, each step runs all of them on uncut rows, and the log says
so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from afteredit.model.hooks import After, Before, hooked
from afteredit.model.kv_cache import FrozenLayer, cache_rows
from afteredit.model.lm import LM
from afteredit.model.tensors import first, nearly_equal, pad

Places = tuple[Tensor, Tensor]  # rows and columns (N,)


class Rerun:
    """Holds rows of token ids cut at their subject's last token, ready to be run again from block `layer` up.

    Column 0 of what `hidden` and `run` return is the subject's last token.  By block, from `layer` up, `keys_BF`
    and `values_BD` hold the input and output of the MLP output matrix there, and `streams_BD` the block's own output
    there.  `uncut` says that every run takes all blocks and whole rows.
    """

    @torch.no_grad()
    def __init__(
        self,
        lm: LM,
        rows: Sequence[Sequence[int]],
        subject_lasts: Sequence[int],
        layer: int,
        *,
        uncut: bool | None = None,
        in_stream: bool = False,
    ):
        """Runs the rows once.  `uncut` is found out where it is None.  `in_stream`: offsets are added to the stream
        after the block and not to its MLP's output."""
        self.lm, self.layer, self._in_stream = lm, layer, in_stream
        lm.mlp_out(layer)  # raises BadInput where there is no such block
        self.keys_BF: dict[int, Tensor] = {}
        self.values_BD: dict[int, Tensor] = {}
        self.streams_BD: dict[int, Tensor] = {}
        self.uncut = not can_rerun(lm) if uncut is None else uncut
        cuts = [0] * len(rows) if self.uncut else subject_lasts
        before_cuts = [tuple(row[:cut]) for row, cut in zip(rows, cuts, strict=True)]
        self._column_B = torch.tensor(subject_lasts) - torch.tensor(cuts)  # of the subject's last token in what is run
        self._n_cached = max(map(len, before_cuts))
        self._ids_BT, self._mask_BT = pad([row[cut:] for row, cut in zip(rows, cuts, strict=True)], "right")
        cache = None
        if self._n_cached:
            cache, cached_mask_BP = _run_prefixes(lm, before_cuts)
            self._mask_BT = torch.cat([cached_mask_BP, self._mask_BT], dim=1)
        self._calls: dict[int, tuple[tuple, dict]] = {}  # by block, the arguments that it is called with
        with hooked(self._recorders(), before=self._call_recorders()):
            lm.forward(self._ids_BT, self._mask_BT, cache, self._n_cached)
        if cache is not None:  # blocks below are not run again
            cache.layers[:layer] = [FrozenLayer() for _ in range(layer)]

    def _call_recorders(self) -> dict[Any, Before]:
        def recorder(index: int) -> Before:
            def record(_module: Any, args: tuple, kwargs: dict) -> None:
                self._calls[index] = (args, kwargs)

            return record

        blocks = [] if self.uncut else range(self.layer, self.lm.n_blocks)
        return {self.lm.anatomy.blocks[index]: recorder(index) for index in blocks}

    def _recorders(self) -> dict[Any, After]:
        blocks, places = range(self.layer, self.lm.n_blocks), self._subject_places()

        def mlp_recorder(index: int) -> After:
            def record(_module: Any, args: tuple, output: Tensor) -> None:
                self.keys_BF[index], self.values_BD[index] = args[0][places], output[places]

            return record

        def stream_recorder(index: int) -> After:
            def record(_module: Any, _args: tuple, output: Any) -> None:
                self.streams_BD[index] = first(output)[places]

            return record

        mlps = {self.lm.mlp_out(index): mlp_recorder(index) for index in blocks}
        return mlps | {self.lm.anatomy.blocks[index]: stream_recorder(index) for index in blocks}

    def _subject_places(self) -> Places:
        """Returns rows and columns of the subjects' last tokens in what is run."""
        return torch.arange(len(self._column_B)), self._column_B

    def hidden(self, offset: Tensor, layer: int | None = None, places: Places | None = None) -> Tensor:
        """Returns normalised hidden states (B, T, D) with `offset` ((D,) or (B, D)) added to the MLP output of block
        `layer` (by default the lowest), or to the stream after it, at the subject's last token.  With `places`, returns
        only those, (N, D).
        """
        layer, subjects = self.layer if layer is None else layer, self._subject_places()

        def add(_module: Any, _args: tuple, output: Any) -> Any:
            values = first(output)
            moved = values.index_put(subjects, values[subjects] + offset.to(values.dtype))
            return (moved, *output[1:]) if isinstance(output, tuple | list) else moved

        with hooked({self.lm.anatomy.blocks[layer] if self._in_stream else self.lm.mlp_out(layer): add}):
            return self.run(layer, places)

    def run(self, layer: int, places: Places | None = None) -> Tensor:
        """Returns normalised hidden states (B, T, D), or those at `places` (N, D), run again from block `layer` up."""
        if self.uncut:
            hidden_BTD = self._from_subjects(self.lm.forward(self._ids_BT, self._mask_BT))
            return hidden_BTD if places is None else hidden_BTD[places]
        hidden_BTD = self._calls[layer][0][0]
        for index in range(layer, self.lm.n_blocks):
            args, kwargs = self._calls[index]
            hidden_BTD = first(self.lm.anatomy.blocks[index](hidden_BTD, *args[1:], **kwargs))
        return self.lm.anatomy.after_blocks(hidden_BTD if places is None else hidden_BTD[places])

    def _from_subjects(self, hidden_BTD: Tensor) -> Tensor:
        """Moves each row to begin at its subject's last token; columns past its end mean nothing."""
        n_rows, width = hidden_BTD.shape[:2]
        columns_BT = (self._column_B[:, None] + torch.arange(width)).clamp(max=width - 1)
        return hidden_BTD[torch.arange(n_rows)[:, None], columns_BT]


def _run_prefixes(lm: LM, prefixes: Sequence[tuple[int, ...]]) -> tuple[DynamicCache, Tensor]:
    """Returns every block's frozen keys and values of the prefixes, padded on the left, and their mask (B, P).

    Equal prefixes are run once.  Padding stands on the left so that what follows a prefix follows it closely: windows
    count columns, not positions.
    """
    distinct = list(dict.fromkeys(prefixes))
    ids_UP, mask_UP = pad(distinct, "left")
    cache = DynamicCache()
    lm.forward(ids_UP, mask_UP, cache)
    index_of = {prefix: i for i, prefix in enumerate(distinct)}
    index_B = torch.tensor([index_of[prefix] for prefix in prefixes])
    return cache_rows(cache, index_B, FrozenLayer), mask_UP[index_B]


def can_rerun(lm: LM) -> bool:
    """Returns whether the model's blocks can be run again on the tokens after a cached prefix alone."""
    return lm.capabilities.can_rerun(lambda: _reruns_like_rows_alone(lm))


@torch.no_grad()
def _reruns_like_rows_alone(lm: LM) -> bool:
    """Returns whether two short rows, run again after a cached prefix, give what the model gives on each alone."""
    rows, lasts = [[1, 2, 3, 1], [3, 2, 1, 2]], [2, 0]
    alone = [lm.forward(*pad([row], "right"))[0, last:] for row, last in zip(rows, lasts, strict=True)]

    for layer in range(min(2, lm.n_blocks)):
        rerun = Rerun(lm, rows, lasts, layer, uncut=False)
        for _ in range(2):  # a block may remember how often it was run
            if not all(map(nearly_equal, rerun.run(layer), alone)):
                return False
    return True
