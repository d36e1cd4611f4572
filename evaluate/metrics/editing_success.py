"""Editing success: did the edit take, does it hold in other words, did the neighbours stay?

Three ways to look, never under one name: `prob`, the new target is likelier than the true one (mean log p per token, as
ROME's own evaluation); `forced`, every target token is the argmax behind the ones before it; `generated`, greedy text
begins with the target.  `portability` asks for what follows from the new fact, so its answer is the one wanted after
the edit, and has no rival.  `neighbourhood` is unchanged from the unedited model W0; `neighbourhood_paper` is
CounterFact's own: the true answer still wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from afteredit.edit.request import EditRequest
from afteredit.evaluate.inference.generation import score_and_generate
from afteredit.evaluate.inference.likelihood import Ids
from afteredit.model.lm import LM

EXTRA_TOKENS = 3  # generated beyond the target's own, since text may be cut into other tokens


@dataclass(frozen=True)
class Probe:
    """One prompt of one request, and the answers it is asked about."""

    request_id: str
    group: str
    index: int
    prompt: str
    target_new: str
    target_true: str | None


@dataclass(frozen=True)
class Seen:
    """What a model did on one probe.  `said_*`: teacher-forced argmax ids; `text`: greedy continuation."""

    nll_new: float
    nll_true: float | None
    said_new: Ids
    said_true: Ids
    text: str


def probes(request: EditRequest) -> list[Probe]:
    asked = [Probe(request.id, "efficacy", 0, request.question, request.target_new, request.target_true)]
    for i, prompt in enumerate(request.paraphrases):
        asked.append(Probe(request.id, "paraphrase", i, prompt, request.target_new, request.target_true))
    for i, (prompt, answer) in enumerate(zip(request.portability, request.portability_answers, strict=True)):
        if answer.strip():  # else unknown
            asked.append(Probe(request.id, "portability", i, prompt, answer, None))
    for i, (prompt, answer) in enumerate(zip(request.neighbourhood, request.neighbourhood_answers, strict=True)):
        asked.append(Probe(request.id, "neighbourhood", i, prompt, request.target_new, answer or None))
    return asked


def look(lm: LM, requests: Iterable[EditRequest]) -> dict[Probe, Seen]:
    """What the model as it is now does on every probe of the requests."""
    answers: dict[Probe, list[Ids]] = {}  # of the new target and, where there is one, of the true one
    wanted: dict[Ids, dict[Ids, None]] = {}
    for probe in chain.from_iterable(map(probes, requests)):
        targets = [probe.target_new] if probe.target_true is None else [probe.target_new, probe.target_true]
        answers[probe] = [lm.tokens.answer_ids(target) for target in targets]
        wanted.setdefault(lm.tokens.question_ids(probe.prompt), {}).update(dict.fromkeys(answers[probe]))
    longest = max(map(len, chain.from_iterable(answers.values())), default=0)
    scores, texts = score_and_generate(lm, wanted, longest + EXTRA_TOKENS)
    seen = {}
    for probe, target_ids in answers.items():
        context = lm.tokens.question_ids(probe.prompt)
        new, *true = (scores[context, ids] for ids in target_ids)
        n_tokens = max(map(len, target_ids)) + EXTRA_TOKENS
        text = lm.tokenizer.decode(texts[context][:n_tokens], skip_special_tokens=True)
        seen[probe] = Seen(new.nll, true[0].nll if true else None, new.said, true[0].said if true else (), text)
    return seen


def judge(lm: LM, now: dict[Probe, Seen], before: dict[Probe, Seen]) -> list[dict]:
    """One row per probe and way of looking that applies: `name` (`prob/efficacy`, …) and `score` in {0, 1}."""
    rows = []
    for probe, seen in now.items():
        for name, success in _judged(lm, probe, seen, before[probe]):
            rows.append({"request": probe.request_id, "probe": probe.index, "name": name, "score": float(success)})
    return rows


def means(rows: Sequence[dict], prefix: str) -> dict[str, float]:
    """Mean score under `prefix/name`: over a request's probes first, then over requests, each request counting once."""
    by_name: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        by_name.setdefault(row["name"], {}).setdefault(row["request"], []).append(row["score"])
    return {
        f"{prefix}/{name}": sum(sum(s) / len(s) for s in requests.values()) / len(requests)
        for name, requests in sorted(by_name.items())
    }


def _judged(lm: LM, probe: Probe, seen: Seen, before: Seen) -> list[tuple[str, bool]]:
    if probe.group != "neighbourhood":
        judged = [
            (f"forced/{probe.group}", seen.said_new == lm.tokens.answer_ids(probe.target_new)),
            (f"generated/{probe.group}", _begins(seen.text, probe.target_new)),
        ]
        if seen.nll_true is not None:
            judged.append((f"prob/{probe.group}", seen.nll_new < seen.nll_true))
        return judged
    judged = [("generated/neighbourhood", seen.text == before.text)]
    if probe.target_true is not None and seen.nll_true is not None and before.nll_true is not None:
        judged += [
            ("prob/neighbourhood", (seen.nll_new < seen.nll_true) == (before.nll_new < before.nll_true)),
            ("forced/neighbourhood", seen.said_true == before.said_true),
            ("prob/neighbourhood_paper", seen.nll_true < seen.nll_new),
            ("forced/neighbourhood_paper", seen.said_true == lm.tokens.answer_ids(probe.target_true)),
            ("generated/neighbourhood_paper", _begins(seen.text, probe.target_true)),
        ]
    return judged


def _begins(text: str, target: str) -> bool:
    return text.strip().casefold().startswith(target.strip().casefold())
