"""The token rows that values are optimised on: a request's prompt under every context prefix, and "{subject} is a"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from afteredit.edit.ingredients.context_prefixes import locate_subject
from afteredit.edit.ingredients.value_settings import KlAt
from afteredit.edit.request import EditRequest
from afteredit.model.lm import LM


@dataclass(frozen=True)
class ValueRows:
    """Token rows of one request: under each context its prompt and all but the last token of the target, then the KL
    row."""

    ids: list[list[int]]
    subject_lasts: list[int]  # index of the subject's last token in each row
    prompt_ends: list[int]  # index of each row's last prompt token: its logits predict the first token of the target
    target: tuple[int, ...]


def value_rows(lm: LM, request: EditRequest, contexts: Sequence[str], kl_at: KlAt = KlAt.prompt_end) -> ValueRows:
    """Returns the rows of `request`; what the last token of the KL row predicts must not change.

    The KL row is "{subject} is a", cut after the subject's last token with `kl_at=subject`.
    """
    target = lm.tokens.answer_ids(request.target_new, request.question)
    rows, subject_lasts, prompt_ends = [], [], []
    for context in contexts:
        ids, last = locate_subject(lm, request, context)
        rows.append([*ids, *target[:-1]])
        subject_lasts.append(last)
        prompt_ends.append(len(ids) - 1)
    ids, last = lm.tokens.locate(f"{request.subject} is a", 0, len(request.subject))
    kl_row = ids[: last + 1] if kl_at is KlAt.subject else ids
    return ValueRows([*rows, kl_row], [*subject_lasts, last], [*prompt_ends, len(kl_row) - 1], target)
