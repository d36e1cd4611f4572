"""Runs the last block's MLP, which no later attention reads, only at the tokens that are read from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from afteredit.model.hooks import answering_by
from afteredit.model.lm import LM

RUNS_EVERYWHERE = (
    "its last block's MLP cannot be run on some tokens alone: every step of an edit's optimisation runs it on all"
)

Places = tuple[Tensor, Tensor]  # rows and columns (N,), each place once


@contextmanager
def last_mlp_at(lm: LM, places: Places | None) -> Iterator[None]:
    """Inside, the last block's MLP runs at `places` alone and gives 0 elsewhere; None stands for all places.

    The MLP runs everywhere where it is no module of its own, takes more than the hidden states or takes them flattened,
    or returns more than one tensor.
    """
    mlp = lm.anatomy.mlps[-1]
    if places is None or mlp is None:
        yield
        return
    forward = mlp.forward

    def at_places(*args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and not kwargs and args[0].ndim == 3:
            rows_columns = tuple(index.to(args[0].device) for index in places)
            output = forward(args[0][rows_columns][None])
            if isinstance(output, Tensor):
                return output.new_zeros(args[0].shape).index_put(rows_columns, output[0])
        lm.capabilities.log_once(RUNS_EVERYWHERE)
        return forward(*args, **kwargs)

    with answering_by(mlp, at_places):
        yield
