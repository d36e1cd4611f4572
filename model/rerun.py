"""What an offset at the subject's last token cannot change is computed once.

By causality an offset added to the MLP output of block L at position s moves neither anything before s nor anything
below L.  So the keys and values of all positions before s are computed once, hidden states entering block L at the
positions from s on are computed once, and so is what leaves it, where the MLP's output joins the residual stream as it
is: each step of an optimisation adds the offset there and runs blocks L+1, L+2, … on those few positions, the last
block's MLP only where it is read.  Rows that leave a group take the padding with them that only they needed.  Blocks
above L need not run for what they are called with (masks, rotations) to be known.
The mathematics is that of the full forward pass (a test holds the two against each other).  Every model is asked once
whether it holds for its blocks; where it does not, each step runs all of them on whole rows, and the log says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor
from transformers import DynamicCache

from afteredit.model.kv_cache import of_rows
from afteredit.model.last_mlp import LAST_MLP_RUNS, Places, last_mlp_at
from afteredit.model.lm import LM
from afteredit.model.run_once import Row, run_once
from afteredit.model.tensors import first, nearly_equal, pad


class Replay:
    """Rows of token ids cut at their subject's last token, ready to be run again and again from block `layer` up.

    Column 0 of what `hidden` and `run` give is the subject's last token.  By block (`layer`, or every one from there
    up), `keys_BF` and `values_BD` are the input and output of the MLP output matrix there, `streams_BD` the block's own
    output there.
    """

    @torch.no_grad()
    def __init__(
        self,
        lm: LM,
        rows: Sequence[Sequence[int]],
        subject_lasts: Sequence[int],
        layer: int,
        *,
        heads: Sequence[Row] = (),
        above: bool = False,
        whole: bool | None = None,
    ):
        """`heads`: what rows of many a replay begin with (run_once.py).  `above`: blocks above `layer` are recorded,
        too, and can be asked for.  `whole`: all blocks are run on uncut rows; None: where the model's blocks cannot be
        run otherwise."""
        self.lm, self.layer = lm, layer
        lm.mlp_out(layer)  # a layer out of range is named
        self.keys_BF: dict[int, Tensor] = {}
        self.values_BD: dict[int, Tensor] = {}
        self.streams_BD: dict[int, Tensor] = {}
        self._whole = not _can_replay(lm) if whole is None else whole
        cuts = [0] * len(rows) if self._whole else subject_lasts
        before = [row[:cut] for row, cut in zip(rows, cuts, strict=True)]
        after = [row[cut:] for row, cut in zip(rows, cuts, strict=True)]
        self._column_B = torch.tensor(subject_lasts) - torch.tensor(cuts)  # of the subject's last token in what is run
        self._past = max(len(row) for row in before)
        self._ids_BT, self._mask_BT = pad(after, "right")
        cache = None
        if self._past:
            cache, before_mask_BP = run_once(lm, list(map(tuple, before)), heads)
            self._mask_BT = torch.cat([before_mask_BP, self._mask_BT], dim=1)
        self._calls: dict[int, tuple[tuple, dict]] = {}
        blocks = range(layer, lm.n_blocks)
        self._not_run = [] if self._whole or above else lm.anatomy.blocks[layer + 1 :]
        recorded = blocks if above else [layer]
        with (
            lm.skip_blocks(self._not_run),
            _hooked(map(self._call_recorder, blocks)),
            _hooked(self._recorders(recorded)),
        ):
            lm.forward(self._ids_BT, self._mask_BT, cache, self._past)
        if cache is not None:  # blocks below are not run again, but masks are made for as many columns as they hold
            for below in cast(list[Any], cache.layers[:layer]):
                below.keys, below.values = below.keys[:, :1, :, :1].clone(), below.values[:, :1, :, :1].clone()
        self._of_all_rows = self._calls, cache, self._column_B, self._ids_BT, self._mask_BT

    def _call_recorder(self, index: int) -> Any:
        def call(_module: Any, args: tuple, kwargs: dict) -> None:
            if not self._whole:
                self._calls[index] = (args, kwargs)

        return self.lm.anatomy.blocks[index].register_forward_pre_hook(call, with_kwargs=True)

    def _recorders(self, blocks: Iterable[int]) -> Iterator[Any]:
        at = self._at()
        for index in blocks:

            def mlp(_module: Any, args: tuple, output: Tensor, index: int = index) -> None:
                self.keys_BF[index], self.values_BD[index] = args[0][at], output[at]

            def stream(_module: Any, _args: tuple, output: Any, index: int = index) -> None:
                self.streams_BD[index] = first(output)[at]

            yield self.lm.mlp_out(index).register_forward_hook(mlp)
            yield self.lm.anatomy.blocks[index].register_forward_hook(stream)

    def _at(self) -> Places:
        """Rows and columns of the subjects' last tokens in what is run."""
        return torch.arange(len(self._column_B)), self._column_B

    def choose(self, rows: Sequence[int]) -> None:
        """From here on these of the rows it was made for are run, in this order; what was recorded stays.  Columns that
        are padding in all of them are left out."""
        calls, cache, column_B, ids_BT, mask_BT = self._of_all_rows
        chosen, n_rows = torch.tensor(rows), len(column_B)
        caches: dict[int, DynamicCache] = {}
        self._column_B, self._ids_BT, self._mask_BT = column_B[chosen], ids_BT[chosen], mask_BT[chosen]
        width = int(self._mask_BT[:, self._past :].sum(1).max())
        if self._whole or width == ids_BT.shape[1]:
            self._calls = cast(dict, of_rows(calls, chosen, n_rows, caches))
        else:
            hidden_BTD = calls[self.layer][0][0][chosen, :width]
            self._narrow(hidden_BTD, of_rows(cache, chosen, n_rows, caches))

    @torch.no_grad()
    def _narrow(self, hidden_BTD: Tensor, cache: DynamicCache | None) -> None:
        """Has the blocks called without the columns that are padding in all chosen rows: every step is spared those."""
        width = hidden_BTD.shape[1]
        self._ids_BT, self._mask_BT = self._ids_BT[:, :width], self._mask_BT[:, : self._past + width]
        self._calls = {}
        blocks = range(self.layer, self.lm.n_blocks)
        with self.lm.skip_blocks(self._not_run), _hooked(map(self._call_recorder, blocks)):
            self.lm.forward_from(self.layer, hidden_BTD, self._ids_BT, self._mask_BT, cache, self._past)

    def hidden(self, offset: Tensor, layer: int | None = None, read: Places | None = None) -> Tensor:
        """Normalised hidden states (B, T, D) with `offset` ((D,) or (B, D)) added to the MLP output of block `layer`
        (default: its own) at the subject's last token.  With `read`, places of which none is there twice: only these,
        (N, D).

        Where the MLP's output joins the residual stream as it is, so does the offset, and the block itself is not run.
        """
        layer, at = self.layer if layer is None else layer, self._at()
        if read is not None and not self._whole and self.lm.anatomy.mlps[-1] is None:
            self.lm.capabilities.log_once(LAST_MLP_RUNS)
        if layer != self.layer and self._not_run:
            raise ValueError(f"blocks above {self.layer} were not recorded; make the replay with above=True")
        if layer + 1 in self._calls and self.lm.capabilities.mlp_joins_stream(layer):
            behind_BTD = self._calls[layer + 1][0][0]
            entering_BTD = behind_BTD.index_put(at, behind_BTD[at] + offset.to(behind_BTD.dtype))
            return self.run(layer + 1, entering_BTD, read)
        if layer + 1 in self._calls:
            self.lm.capabilities.log_once(
                "its MLP's output does not join the residual stream as it is: every step of an edit's "
                "optimisation runs the edited block, too"
            )

        def add(_module: Any, _args: tuple, output: Tensor) -> Tensor:
            return output.index_put(at, output[at] + offset.to(output.dtype))

        hook = self.lm.mlp_out(layer).register_forward_hook(add)
        try:
            return self.run(layer, read=read)
        finally:
            hook.remove()

    def run(self, layer: int, hidden_BTD: Tensor | None = None, read: Places | None = None) -> Tensor:
        """Normalised hidden states (B, T, D), or where they are `read` (N, D), computed again from block `layer` up.

        `hidden_BTD` enters it in place of what did when the rows were read.
        """
        if self._whole:
            hidden_BTD = self._from_subjects(self.lm.forward(self._ids_BT, self._mask_BT))
            return hidden_BTD if read is None else hidden_BTD[read]
        # an offset to that very MLP's output is added in (B, T, D), by a hook
        may_be_hooked = hidden_BTD is None and layer == self.lm.n_blocks - 1
        hidden_BTD = self._calls[layer][0][0] if hidden_BTD is None else hidden_BTD
        with last_mlp_at(self.lm, None if may_be_hooked else read):
            for index in range(layer, self.lm.n_blocks):
                args, kwargs = self._calls[index]
                hidden_BTD = first(self.lm.anatomy.blocks[index](hidden_BTD, *args[1:], **kwargs))
        return self.lm.anatomy.final_norm(hidden_BTD if read is None else hidden_BTD[read])

    def _from_subjects(self, hidden_BTD: Tensor) -> Tensor:
        """Each row moved to begin at its subject's last token; columns behind its end mean nothing."""
        n_rows, width = hidden_BTD.shape[:2]
        columns_BT = (self._column_B[:, None] + torch.arange(width)).clamp(max=width - 1)
        return hidden_BTD[torch.arange(n_rows)[:, None], columns_BT]


@contextmanager
def _hooked(hooks: Iterable[Any]) -> Iterator[None]:
    hooks = list(hooks)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _can_replay(lm: LM) -> bool:
    return lm.capabilities.can_rerun(lambda: _replays(lm, [[1, 2, 3, 1], [3, 2, 1, 2]], [2, 0]))


@torch.no_grad()
def _replays(lm: LM, rows: Sequence[Sequence[int]], lasts: Sequence[int]) -> bool:
    own = [lm.forward(*pad([row], "right"))[0, last:] for row, last in zip(rows, lasts, strict=True)]

    def gives(replay: Replay, chosen: Sequence[int]) -> bool:
        ends = torch.arange(len(chosen)), torch.tensor([len(own[row]) - 1 for row in chosen])
        hidden_BTD, ends_BD = replay.run(replay.layer), replay.run(replay.layer, read=ends)
        return all(
            nearly_equal(hidden_BTD[i, : len(own[row])], own[row]) and nearly_equal(ends_BD[i : i + 1], own[row][-1:])
            for i, row in enumerate(chosen)
        )

    for layer in range(min(2, lm.n_blocks)):
        replay = Replay(lm, rows, lasts, layer, whole=False)
        if not (gives(replay, [0, 1]) and gives(replay, [0, 1])):
            return False
        for chosen in ([0], [1]):  # with fewer columns, and with as many
            replay.choose(chosen)
            if not gives(replay, chosen):
                return False
    return True
