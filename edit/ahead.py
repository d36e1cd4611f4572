"""Edits that do not depend on each other (setting=single) have their values optimised together, ahead of their turn.

Groups are made of requests of like length, among a window of them, and depend on nothing but the run's edits: one that
was killed makes the same groups again, and so the same bits.  (With a larger n_edits the last window is cut anew.)  A
group holds twice as many requests as are optimised at once: each takes the place of one that is done (value.py).  No
group is filled up with requests of the next, since every edit's rounding would then hang on all before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from afteredit.edit.method import Method, Prepared
from afteredit.edit.request import EditRequest

if TYPE_CHECKING:
    from afteredit.model.lm import LM

WINDOW = 2  # groups
FILL = 2  # requests of a group, in what is optimised at once


class Ahead:
    """`prepared` for each batch of `requests`, with what a method that can look ahead found for it."""

    def __init__(self, method: Method, lm: LM, requests: Sequence[EditRequest], prepared: Prepared):
        """Methods that look ahead have `ahead(lm, requests, prepared)`, a value by request id, and a key `together`."""
        self._ahead: Any = getattr(method, "ahead", None)
        self._lm, self._prepared = lm, prepared
        self._group_of: dict[str, list[EditRequest]] = {}
        self._found: dict[str, Any] = {}
        if self._ahead is not None:
            size = FILL * method.together  # type: ignore[attr-defined]
            for start in range(0, len(requests), WINDOW * size):
                for group in of_like_length(lm, requests[start : start + WINDOW * size], size):
                    self._group_of |= {request.id: group for request in group}

    def prepared(self, batch: Sequence[EditRequest]) -> Prepared:
        """To be asked for while the model is unedited."""
        if self._ahead is None:
            return self._prepared
        for request in batch:
            if request.id not in self._found:
                self._found |= self._ahead(self._lm, self._group_of[request.id], self._prepared)
        return replace(self._prepared, ahead={request.id: self._found.pop(request.id) for request in batch})


def of_like_length(lm: LM, requests: Sequence[EditRequest], size: int) -> list[list[EditRequest]]:
    """Groups of at most `size`, so that rows padded to the longest of their group are padded by little."""

    def n_tokens(request: EditRequest) -> int:  # those that an optimisation runs: from the subject's last on
        ids, last = lm.tokens.locate(request.question, request.subject_start, len(request.subject))
        return len(ids) - last + len(lm.tokens.answer_ids(request.target_new))

    ordered = sorted(requests, key=n_tokens)
    return [ordered[i : i + size] for i in range(0, len(ordered), size)]
