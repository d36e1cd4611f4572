"""Checks before the first edit, not at the 500th, that this method can write every planned fact into this model."""

from __future__ import annotations

from collections.abc import Sequence

from afteredit.edit.method import Method
from afteredit.edit.request import EditRequest
from afteredit.model.lm import LM
from afteredit.store.errors import BadInput

MOST_NAMED = 5  # edits named for one reason, and reasons named


def refuse_uneditable(lm: LM, method: Method, requests: Sequence[EditRequest]) -> None:
    """Raises BadInput, naming the edits and the remedy, where some of them cannot be made.

    The tokenizer may not find a subject or not tell an answer from the text before it, a row may lack what the method
    needs, and an edit of the last block may reach no later token.
    """
    reasons: dict[str, list[EditRequest]] = {}
    for request in requests:
        reason = _reason(lm, method, request)
        if reason:
            reasons.setdefault(reason, []).append(request)
    if reasons:
        causes = "; ".join(f"{_named(failing)}: {reason}" for reason, failing in list(reasons.items())[:MOST_NAMED])
        n = sum(map(len, reasons.values()))
        raise BadInput(f"{n} of {len(requests)} planned edits cannot be made: {causes}; reword or leave out their rows")


def _reason(lm: LM, method: Method, request: EditRequest) -> str | None:
    """Returns why a request cannot be edited or measured; None where it can."""
    if method.needs_true_answer and request.target_true is None:
        return "no target_true, but this method needs the true answer (give one, or use another method)"
    try:
        ids, last = lm.tokens.locate(request.question, request.subject_start, len(request.subject))
        for prompt in (*request.paraphrases, *request.neighbourhood, *request.portability, *request.generation_prompts):
            lm.tokens.question_ids(prompt)
        new_ids = lm.tokens.answer_ids(request.target_new, request.question)
        for prompt, answer in (*zip(request.neighbourhood, request.neighbourhood_answers, strict=True),
                               *zip(request.portability, request.portability_answers, strict=True)):  # fmt: skip
            if answer.strip():
                lm.tokens.answer_ids(answer, prompt)
        if request.target_true is not None and lm.tokens.answer_ids(request.target_true, request.question) == new_ids:
            return f"target_new {request.target_new!r} and target_true are the same tokens"
    except BadInput as problem:
        return str(problem)
    if _edits_the_last_block(lm, method) and last < len(ids) - 1:
        return ("written at the last block, whose change at the subject reaches no later token (choose lower blocks in "
                "method.layer or method.layers)")  # fmt: skip
    return None


def _edits_the_last_block(lm: LM, method: Method) -> bool:
    return method.optimises_values and method.edited(lm)[-1] == lm.mlp_out_name(lm.n_blocks - 1)


def _named(requests: Sequence[EditRequest]) -> str:
    names = ", ".join(request.id for request in requests[:MOST_NAMED])
    more = len(requests) - MOST_NAMED
    return f"edit {names}" + (f" and {more} more" if more > 0 else "")
