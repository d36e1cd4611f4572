"""The token rows that values are optimised on: a request's prompt under every context prefix, and "{subject} is a"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from afteredit.edit.request import EditRequest
from afteredit.model.lm import LM
from afteredit.model.run_once import Row


@dataclass(frozen=True)
class Prompts:
    """Token rows of one request: every context's prompt with the target but its last token, and last the KL prompt."""

    rows: list[list[int]]
    subject_lasts: list[int]
    prompt_ends: list[int]  # index of each row's last prompt token: its logits predict the first answer token
    target: tuple[int, ...]


def value_prompts(lm: LM, request: EditRequest, contexts: Sequence[str]) -> Prompts:
    target = lm.tokens.answer_ids(request.target_new)
    rows, subject_lasts, prompt_ends = [], [], []
    for context in contexts:
        front = f"{context}. " if context else ""
        ids, last = lm.tokens.locate(front + request.question, len(front) + request.subject_start, len(request.subject))
        rows.append([*ids, *target[:-1]])
        subject_lasts.append(last)
        prompt_ends.append(len(ids) - 1)
    ids, last = lm.tokens.locate(f"{request.subject} is a", 0, len(request.subject))
    return Prompts([*rows, ids], [*subject_lasts, last], [*prompt_ends, len(ids) - 1], target)


def context_heads(lm: LM, contexts: Sequence[str]) -> list[Row]:
    """What rows of `value_prompts` begin with whatever the request, where the tokenizer does not merge across: what
    stands before a question (start token, a chat's turn), and that with each context."""
    heads = []
    for front in (f"{context}." for context in contexts if context):
        text, start = lm.tokens.in_prompt_mode(front)
        opening = text[:start].rstrip(" ")  # tokenizers take a blank to the word behind it
        heads += [lm.tokens.encode(opening), lm.tokens.encode(text[: start + len(front)])]
    return [head for head in dict.fromkeys(heads) if head]
