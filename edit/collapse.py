"""A model that earlier edits have broken may leave a method no edit: recorded as a collapse, not written, no crash."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from afteredit.edit.method import Method, Prepared
from afteredit.edit.request import EditRequest
from afteredit.edit.update import State, Update
from afteredit.store.errors import NoEdit

if TYPE_CHECKING:
    from afteredit.model.lm import LM

log = logging.getLogger(__name__)


def update_or_collapse(
    method: Method, lm: LM, requests: Sequence[EditRequest], prepared: Prepared, state: State
) -> tuple[Update, State]:
    """The method's update and state; an empty update with the diagnostic `collapsed`, and the state as it was, where
    the method's is not finite or the edited model leaves it none.  Raises NoEdit where the unedited one does."""
    import torch

    try:
        update, extended = method.update(lm, requests, prepared, state)
    except (NoEdit, torch.linalg.LinAlgError) as problem:
        if is_unedited(lm):
            raise
        log.warning("collapse: %s", problem)
    else:
        if update.is_finite():
            return update, extended
        log.warning("collapse: the update of %s holds NaN, infinity or more than float32 can", requests[0].id)
    return Update({}, diagnostics={"collapsed": 1.0}), state


def is_unedited(lm: LM) -> bool:
    """Are all matrices that edits may have touched as they were before the first?"""
    import torch

    return all(torch.equal(lm.weights.W(name), base_DF) for name, base_DF in lm.weights.base.items())
