"""Editing success: whether an edit took, whether it holds in other words, and whether the neighbours stayed.

Three criteria, never under one name: `prob`, the new target is likelier than the true one (mean log p per token, as in
ROME's own evaluation); `forced`, every target token is the argmax after the tokens before it; `generated`, greedy text
gives the target (answer_match.py).  `portability` asks for what follows from the new fact, so its answer is the one
wanted after the edit, and has no rival; a generated text may give it under any of its names.  `neighbourhood` is
unchanged from the unedited model W0; `neighbourhood_paper` is CounterFact's own criterion: the true answer still wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, takewhile
from typing import Any

from afteredit.edit.request import EXTRA_TOKENS, EditRequest
from afteredit.evaluate.inference.batches import Ids
from afteredit.evaluate.inference.generation import score_and_generate
from afteredit.evaluate.metrics.answer_match import gives_answer
from afteredit.model.lm import LM


@dataclass(frozen=True)
class SuccessPrompt:
    """Holds one prompt that belongs to a request, and the answers that are compared on it.

    `index` counts the prompts of one `group` (efficacy, paraphrase, portability, neighbourhood).
    """

    request_id: str
    group: str
    index: int
    prompt: str
    target_new: str
    target_true: str | None
    aliases: tuple[str, ...] = ()  # of the new target: a generated text may give it by another name


@dataclass(frozen=True)
class Response:
    """Holds what a model does on one prompt.

    `argmax_*`: the likeliest id at each place of the target, after the target's own tokens; `text`: greedy text.
    """

    nll_new: float
    nll_true: float | None
    argmax_new: Ids
    argmax_true: Ids
    text: str


Responses = dict[SuccessPrompt, Response]


def success_prompts(request: EditRequest) -> list[SuccessPrompt]:
    """Returns the prompts on which the success of one edit is measured, its own first."""
    id, new, true = request.id, request.target_new, request.target_true
    prompts = [SuccessPrompt(id, "efficacy", 0, request.question, new, true)]
    for i, prompt in enumerate(request.paraphrases):
        prompts.append(SuccessPrompt(id, "paraphrase", i, prompt, new, true))
    aliases = request.portability_aliases or ((),) * len(request.portability)
    asked = zip(request.portability, request.portability_answers, aliases, strict=True)
    for i, (prompt, answer, others) in enumerate(asked):
        if answer.strip():  # else it is unknown
            prompts.append(SuccessPrompt(id, "portability", i, prompt, answer, None, others))
    for i, (prompt, answer) in enumerate(zip(request.neighbourhood, request.neighbourhood_answers, strict=True)):
        prompts.append(SuccessPrompt(id, "neighbourhood", i, prompt, new, answer or None))
    return prompts


def respond(lm: LM, requests: Iterable[EditRequest]) -> Responses:
    """Returns what the model as it is now does on every prompt of the requests."""
    target_ids: dict[SuccessPrompt, list[Ids]] = {}  # of the new target and, where there is one, of the true one
    longest: dict[SuccessPrompt, int] = {}  # tokens of the longest answer that the greedy text may give
    continuations: dict[Ids, dict[Ids, None]] = {}
    for prompt in chain.from_iterable(map(success_prompts, requests)):
        targets = [prompt.target_new] if prompt.target_true is None else [prompt.target_new, prompt.target_true]
        target_ids[prompt] = [lm.tokens.answer_ids(target, prompt.prompt) for target in targets]
        continuations.setdefault(lm.tokens.question_ids(prompt.prompt), {}).update(dict.fromkeys(target_ids[prompt]))
        aliases = [lm.tokens.answer_ids(alias, prompt.prompt) for alias in prompt.aliases]
        longest[prompt] = max(map(len, [*target_ids[prompt], *aliases]))
    scores, texts = score_and_generate(lm, continuations, max(longest.values(), default=0) + EXTRA_TOKENS)
    responses, special = {}, lm.tokens.special_ids
    for prompt, ids_of_targets in target_ids.items():
        context = lm.tokens.question_ids(prompt.prompt)
        new, *true = [scores[context, ids] for ids in ids_of_targets]
        n_tokens = longest[prompt] + EXTRA_TOKENS
        # a special token ends the text or the turn: what follows is the begin of another
        text = lm.tokenizer.decode(list(takewhile(lambda token: token not in special, texts[context][:n_tokens])))
        responses[prompt] = Response(
            new.nll, true[0].nll if true else None, new.argmax_ids, true[0].argmax_ids if true else (), text
        )
    return responses


def success_scores(lm: LM, now: Responses, unedited: Responses, *, answers: bool = False) -> list[dict[str, Any]]:
    """Returns one row per prompt and criterion that applies: `name` (`prob/efficacy`, …) and `score` in {0, 1}.

    With `answers` also what the model said: the greedy text, or the mean log p of the new and of the true target.
    """
    return [
        {
            "request": prompt.request_id,
            "probe": prompt.index,
            "name": name,
            "score": float(success),
            **(_said(name, response) if answers else {}),
        }
        for prompt, response in now.items()
        for name, success in _successes(lm, prompt, response, unedited[prompt])
    ]


def _said(name: str, response: Response) -> dict[str, Any]:
    if name.startswith("prob/") and response.nll_true is not None:
        return {"log_likelihoods": [-response.nll_new, -response.nll_true]}
    return {"answer": response.text} if name.startswith("generated/") else {}


def means(rows: Sequence[dict[str, Any]], prefix: str, weights: Mapping[str, float] | None = None) -> dict[str, float]:
    """Returns the mean score under `prefix/name`: over a request's prompts first, then over requests, by their weights
    where these are given."""
    by_name: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        by_name.setdefault(row["name"], {}).setdefault(row["request"], []).append(row["score"])
    found = {}
    for name, requests in sorted(by_name.items()):
        of = {request: weights[request] if weights else 1 for request in requests}
        found[f"{prefix}/{name}"] = sum(of[r] * sum(s) / len(s) for r, s in requests.items()) / sum(of.values())
    return found


def _successes(lm: LM, prompt: SuccessPrompt, now: Response, unedited: Response) -> list[tuple[str, bool]]:
    if prompt.group != "neighbourhood":
        names = (prompt.target_new, *prompt.aliases)
        successes = [
            (f"forced/{prompt.group}", now.argmax_new == lm.tokens.answer_ids(prompt.target_new, prompt.prompt)),
            (f"generated/{prompt.group}", any(_gives(lm, prompt, now.text, name) for name in names)),
        ]
        if now.nll_true is not None:
            successes.append((f"prob/{prompt.group}", now.nll_new < now.nll_true))
        return successes
    successes = [("generated/neighbourhood", now.text == unedited.text)]
    if prompt.target_true is not None and now.nll_true is not None and unedited.nll_true is not None:
        successes += [
            ("prob/neighbourhood", (now.nll_new < now.nll_true) == (unedited.nll_new < unedited.nll_true)),
            ("forced/neighbourhood", now.argmax_true == unedited.argmax_true),
            ("prob/neighbourhood_paper", now.nll_true < now.nll_new),
            ("forced/neighbourhood_paper", now.argmax_true == lm.tokens.answer_ids(prompt.target_true, prompt.prompt)),
            ("generated/neighbourhood_paper", _gives(lm, prompt, now.text, prompt.target_true)),
        ]
    return successes


def _gives(lm: LM, prompt: SuccessPrompt, text: str, answer: str) -> bool:
    """Tells whether a text gives the answer, or the answer as the tokenizer writes it: some know no capitals."""
    return gives_answer(text, answer) or gives_answer(
        text, lm.tokenizer.decode(lm.tokens.answer_ids(answer, prompt.prompt))
    )
