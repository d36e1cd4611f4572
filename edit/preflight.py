"""Can every planned fact be written into this model by this method?  Asked before the first edit, not at the 500th."""

from __future__ import annotations

from collections.abc import Sequence

from afteredit.edit.method import Method
from afteredit.edit.request import EditRequest
from afteredit.model.lm import LM
from afteredit.store.errors import BadInput

NAMED = 5  # of the edits that fail for one reason


def refuse_uneditable(lm: LM, method: Method, requests: Sequence[EditRequest]) -> None:
    """Raises BadInput that names the edits and says what to do where the tokenizer cannot find a subject or tell an
    answer apart, or the method needs what a row does not have."""
    reasons: dict[str, list[EditRequest]] = {}
    for request in requests:
        reason = _reason(lm, method, request)
        if reason:
            reasons.setdefault(reason, []).append(request)
    if reasons:
        said = "; ".join(f"{_named(failing)}: {reason}" for reason, failing in list(reasons.items())[:NAMED])
        n = sum(map(len, reasons.values()))
        raise BadInput(f"{n} of {len(requests)} planned edits cannot be made: {said}; reword or leave out their rows")


def _reason(lm: LM, method: Method, request: EditRequest) -> str | None:
    """None for a request that can be edited and measured."""
    if method.needs_true_answer and request.target_true is None:
        return "no target_true, but this method looks for what says the true answer (give one, or use another method)"
    try:
        ids, last = lm.tokens.locate(request.question, request.subject_start, len(request.subject))
        for prompt in (*request.paraphrases, *request.neighbourhood, *request.portability, *request.generation_prompts):
            lm.tokens.question_ids(prompt)
        new_ids = lm.tokens.answer_ids(request.target_new)
        for answer in (*request.neighbourhood_answers, *request.portability_answers):
            if answer.strip():
                lm.tokens.answer_ids(answer)
        if request.target_true is not None and lm.tokens.answer_ids(request.target_true) == new_ids:
            return f"target_new {request.target_new!r} and target_true are the same tokens"
    except BadInput as problem:
        return str(problem)
    if _writes_values_at_the_end(lm, method) and last < len(ids) - 1:
        return ("written at the last block, whose change at the subject reaches no later token (choose lower blocks in "
                "method.layer or method.layers)")  # fmt: skip
    return None


def _writes_values_at_the_end(lm: LM, method: Method) -> bool:
    return method.optimises_values and method.edited(lm)[-1] == lm.mlp_out_name(lm.n_blocks - 1)


def _named(requests: Sequence[EditRequest]) -> str:
    names = ", ".join(request.id for request in requests[:NAMED])
    more = len(requests) - NAMED
    return f"edit {names}" + (f" and {more} more" if more > 0 else "")
