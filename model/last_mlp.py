"""The last block's MLP, which nothing attends to any more, run only where it is read: it works token by token."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from afteredit.model.hooks import answering_by
from afteredit.model.lm import LM

LAST_MLP_RUNS = "its last block's MLP cannot be run on some tokens alone: every step of an edit's optimisation runs all"

Places = tuple[Tensor, Tensor]  # rows and columns (N,), none twice


@contextmanager
def last_mlp_at(lm: LM, read: Places | None) -> Iterator[None]:
    """Inside, the last block's MLP runs only where it is `read`, and gives 0 elsewhere.

    Not where it is no module of its own, or is given more than the hidden states, flattened ones, or gives more.
    """
    mlp = lm.anatomy.mlps[-1]
    if read is None or mlp is None:
        yield
        return
    own = mlp.forward

    def at_places(*given: Any, **named: Any) -> Any:
        if len(given) == 1 and not named and given[0].ndim == 3:
            places = tuple(index.to(given[0].device) for index in read)
            found = own(given[0][places][None])
            if isinstance(found, Tensor):
                return found.new_zeros(given[0].shape).index_put(places, found[0])
        lm.capabilities.log_once(LAST_MLP_RUNS)
        return own(*given, **named)

    with answering_by(mlp, at_places):
        yield
