"""Which requests have their values searched for in one go: those of like length, whose rows need little padding."""

from __future__ import annotations

from collections.abc import Sequence

from afteredit.edit.request import EditRequest
from afteredit.model.lm import LM

REQUESTS_PER_PLACE = 2  # of a group: where one request is done, the next takes its place


def group_size(together: int) -> int:
    """Returns how many requests share a group, where `together` of them are optimised at once."""
    return REQUESTS_PER_PLACE * together


def groups_of_like_length(lm: LM, requests: Sequence[EditRequest], together: int) -> list[list[EditRequest]]:
    """Returns the requests, ordered by length, in groups of `group_size(together)`."""

    def n_tokens(request: EditRequest) -> int:
        """Counts what an optimisation runs: the tokens from the subject's last one on."""
        ids, last = lm.tokens.locate(request.question, request.subject_start, len(request.subject))
        return len(ids) - last + len(lm.tokens.answer_ids(request.target_new))

    ordered, size = sorted(requests, key=n_tokens), group_size(together)
    return [ordered[i : i + size] for i in range(0, len(ordered), size)]
