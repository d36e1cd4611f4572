"""Checks before the first edit, not at the 500th, that this method can write every planned fact into this model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

from afteredit.edit.ingredients.context_prefixes import locate_subject, prefix_text
from afteredit.edit.method import Method
from afteredit.edit.request import EXTRA_TOKENS, EditRequest, by_row
from afteredit.model.lm import LM
from afteredit.store.errors import BadInput
from afteredit.store.rows.normal_text import shown

log = logging.getLogger(__name__)
MOST_NAMED = 5  # edits named for one reason, and reasons named
Reasons = dict[str, list[EditRequest]]  # the requests that fail for each reason
REMEDY = "reword or leave out their rows"
SKIP = f"{REMEDY} (++edits.on_bad_row=skip leaves out those that are at fault themselves)"


def refuse_uneditable(
    lm: LM, method: Method, planned: Sequence[EditRequest], also_asked: Sequence[EditRequest] = ()
) -> None:
    """Raises BadInput, naming the edits and the remedy, where some of them cannot be made.

    The tokenizer may not find a subject or not tell an answer from the text before it, a prompt may be longer than the
    model reads, a row may lack what the method needs, and an edit of the last block may reach no later token.
    `also_asked`: facts that are not edited, but that the unedited model is measured on.
    """
    _refuse(planned, lambda request: _reason(lm, method, request), "planned edits cannot be made", SKIP)
    what = "facts after the planned edits, on which the unedited model is measured, cannot be asked"
    _refuse(also_asked, lambda request: _reason_by_tokens(lm, request), what, SKIP)


def without_bad_rows(lm: LM, method: Method, requests: Sequence[EditRequest], needed: int) -> list[EditRequest]:
    """Returns the first `needed` requests, at most, that are not at fault themselves; the log counts and names the
    others up to there.  Of a row that holds several facts all are left out where one is at fault.

    Which these are depends on the model, the method and the requests alone, all of which are in a run's name.
    """
    usable: list[EditRequest] = []
    reasons: Reasons = {}
    for facts in by_row(requests):
        if len(usable) >= needed:
            break
        reason = next(filter(None, (_reason_by_row(lm, method, request) for request in facts)), None)
        if reason:
            reasons.setdefault(reason, []).extend(facts)
        else:
            usable += facts
    _warn(reasons, "bad rows skipped")
    return usable[:needed]


def learnable(lm: LM, training: Sequence[EditRequest]) -> list[EditRequest]:
    """Returns the rows of a training split that the model can read; the log counts and names the others."""
    reasons = _by_reason(training, lambda request: _reason_by_tokens(lm, request))
    _warn(reasons, "bad training rows skipped")
    skipped = {request.id for failing in reasons.values() for request in failing}
    return [request for request in training if request.id not in skipped]


def refuse_long_prefixes(lm: LM, planned: Sequence[EditRequest], contexts: Sequence[str]) -> None:
    """Raises BadInput where a prompt under one of the context prefixes, with its answer, is longer than the model
    reads."""
    longest = max(contexts, key=lambda context: len(lm.tokens.encode(prefix_text(context))))

    def reason(request: EditRequest) -> str | None:
        n_tokens = len(locate_subject(lm, request, longest)[0]) + _longest_answer(lm, request) - 1
        what = f"its prompt {shown(request.question)}, with its answer and the context prefix {longest!r},"
        return _too_long(lm, n_tokens, what)

    _refuse(planned, reason, "planned edits cannot be made", REMEDY)


def refuse_unlearnable(lm: LM, training: Sequence[EditRequest]) -> list[EditRequest]:
    """Returns the rows of a training split.  Raises BadInput where the model cannot read some of them."""
    _refuse(training, lambda request: _reason_by_tokens(lm, request), "training rows cannot be learned from", SKIP)
    return list(training)


def _refuse(
    requests: Sequence[EditRequest], reason_of: Callable[[EditRequest], str | None], what: str, remedy: str
) -> None:
    reasons = _by_reason(requests, reason_of)
    if reasons:
        raise BadInput(f"{_n_failing(reasons)} of {len(requests)} {what}: {_causes(reasons)}; {remedy}")


def _warn(reasons: Reasons, what: str) -> None:
    if reasons:
        log.warning("%d %s (edits.on_bad_row=skip): %s", _n_failing(reasons), what, _causes(reasons))


def _by_reason(requests: Sequence[EditRequest], reason_of: Callable[[EditRequest], str | None]) -> Reasons:
    reasons: Reasons = {}
    for request in requests:
        reason = reason_of(request)
        if reason:
            reasons.setdefault(reason, []).append(request)
    return reasons


def _n_failing(reasons: Reasons) -> int:
    return sum(map(len, reasons.values()))


def _causes(reasons: Reasons) -> str:
    causes = "; ".join(f"{_named(failing)}: {reason}" for reason, failing in list(reasons.items())[:MOST_NAMED])
    return causes + (f"; … and {len(reasons) - MOST_NAMED} reasons more" if len(reasons) > MOST_NAMED else "")


def _reason(lm: LM, method: Method, request: EditRequest) -> str | None:
    """Returns why a request cannot be edited or measured; None where it can."""
    return _reason_by_row(lm, method, request) or _reason_by_place(lm, method, request)


def _reason_by_row(lm: LM, method: Method, request: EditRequest) -> str | None:
    """Returns what is wrong with the row itself, which leaving it out mends; None where it is usable."""
    if method.needs_true_answer and request.target_true is None:
        return "no target_true, but this method needs the true answer (give one, or use another method)"
    return _reason_by_tokens(lm, request)


def _reason_by_tokens(lm: LM, request: EditRequest) -> str | None:
    """Returns why the tokenizer or the model's length does not take the request; None where they do."""
    try:
        lm.tokens.locate(request.question, request.subject_start, len(request.subject))
        new_ids = lm.tokens.answer_ids(request.target_new, request.question)
        if request.target_true is not None and lm.tokens.answer_ids(request.target_true, request.question) == new_ids:
            return f"target_new {shown(request.target_new)} and target_true are the same tokens"
        reasons = (_too_long(lm, n_tokens, what) for what, n_tokens in _readings(lm, request))
        return next((reason for reason in reasons if reason), None)
    except BadInput as problem:
        return str(problem)


def _reason_by_place(lm: LM, method: Method, request: EditRequest) -> str | None:
    ids, last = lm.tokens.locate(request.question, request.subject_start, len(request.subject))
    if _edits_the_last_block(lm, method) and last < len(ids) - 1:
        return ("written at the last block, whose change at the subject reaches no later token (choose lower blocks in "
                "method.layer or method.layers)")  # fmt: skip
    return None


def _readings(lm: LM, request: EditRequest) -> Iterator[tuple[str, int]]:
    """Yields every text of the request that the model must read, and its number of tokens.

    A question is read with all but the last token of the longest of its answers, or of what is generated after it.
    """
    new, true = request.target_new, request.target_true or ""
    aliases = request.portability_aliases or ((),) * len(request.portability)
    asked: list[tuple[str, str, tuple[str, ...]]] = [("its prompt", request.question, (new, true))]
    asked += [(f"paraphrase {i}", prompt, (new, true)) for i, prompt in enumerate(request.paraphrases, 1)]
    for name, prompts, answers, others in (
        ("portability prompt", request.portability, request.portability_answers, aliases),
        ("neighbourhood prompt", request.neighbourhood, request.neighbourhood_answers,
         ((new,),) * len(request.neighbourhood)),
    ):  # fmt: skip
        triples = enumerate(zip(prompts, answers, others, strict=True), 1)
        asked += [(f"{name} {i}", prompt, (answer, *more)) for i, (prompt, answer, more) in triples]
    for what, prompt, texts in asked:
        longest = max((len(lm.tokens.answer_ids(text, prompt)) for text in texts if text.strip()), default=0)
        n_tokens = len(lm.tokens.question_ids(prompt)) + longest + EXTRA_TOKENS - 1
        yield f"{what} {shown(prompt)}, with its answer,", n_tokens
    for i, prompt in enumerate(request.generation_prompts, 1):
        yield f"generation prompt {i} {shown(prompt)}", len(lm.tokens.question_ids(prompt))


def _longest_answer(lm: LM, request: EditRequest) -> int:
    answers = (answer for answer in (request.target_new, request.target_true) if answer is not None)
    return max(len(lm.tokens.answer_ids(answer, request.question)) for answer in answers)


def _too_long(lm: LM, n_tokens: int, what: str) -> str | None:
    if lm.max_tokens is None or n_tokens <= lm.max_tokens:
        return None
    return f"{what} has {n_tokens} tokens, but the model reads {lm.max_tokens}"


def _edits_the_last_block(lm: LM, method: Method) -> bool:
    return method.optimises_values and method.edited(lm)[-1] == lm.mlp_out_name(lm.n_blocks - 1)


def _named(requests: Sequence[EditRequest]) -> str:
    names = ", ".join(request.named for request in requests[:MOST_NAMED])
    more = len(requests) - MOST_NAMED
    return f"edit {names}" + (f" and {more} more" if more > 0 else "")
