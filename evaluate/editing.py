"""Editing success: did the edit take, does it hold in other words, did the neighbours stay?

Three ways to look, never under one name: `prob`, the new target is likelier than the true one (mean log p per token, as
ROME's own evaluation); `forced`, every target token is the argmax behind the ones before it; `generated`, greedy text
begins with the target.  `neighbourhood` is unchanged from the unedited model W0; `neighbourhood_paper` is CounterFact's
own: the true answer still wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from afteredit.edit.lm import LM
from afteredit.edit.request import EditRequest
from afteredit.evaluate.generation import generate
from afteredit.evaluate.likelihood import Ids, Scored, score

GROUPS = ("efficacy", "paraphrase", "neighbourhood")
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
    for i, (prompt, answer) in enumerate(zip(request.neighbourhood, request.neighbourhood_answers, strict=True)):
        asked.append(Probe(request.id, "neighbourhood", i, prompt, request.target_new, answer or None))
    return asked


def look(lm: LM, requests: Iterable[EditRequest]) -> dict[Probe, Seen]:
    """What the model as it is now does on every probe of the requests."""
    asked = [probe for request in requests for probe in probes(request)]
    pairs: list[tuple[Ids, Ids]] = []
    for probe in asked:
        context = lm.ask(probe.prompt)
        pairs.append((context, lm.answer_ids(probe.target_new)))
        if probe.target_true is not None:
            pairs.append((context, lm.answer_ids(probe.target_true)))
    results = dict(zip(pairs, score(lm, pairs), strict=True))
    longest = max((len(answer) for _, answer in pairs), default=0)
    texts = generate(lm, [lm.ask(probe.prompt) for probe in asked], longest + EXTRA_TOKENS) if asked else []
    seen = {}
    for probe, ids in zip(asked, texts, strict=True):
        context, n_tokens = lm.ask(probe.prompt), 0
        new_ids = lm.answer_ids(probe.target_new)
        new, true = results[context, new_ids], None
        n_tokens = len(new_ids) + EXTRA_TOKENS
        if probe.target_true is not None:
            true_ids = lm.answer_ids(probe.target_true)
            true, n_tokens = results[context, true_ids], max(n_tokens, len(true_ids) + EXTRA_TOKENS)
        text = lm.tokenizer.decode(ids[:n_tokens], skip_special_tokens=True)
        seen[probe] = _seen(new, true, text)
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


def _seen(new: Scored, true: Scored | None, text: str) -> Seen:
    return Seen(new.nll, None if true is None else true.nll, new.said, () if true is None else true.said, text)


def _judged(lm: LM, probe: Probe, seen: Seen, before: Seen) -> list[tuple[str, bool]]:
    if probe.group != "neighbourhood":
        judged = [
            (f"forced/{probe.group}", seen.said_new == lm.answer_ids(probe.target_new)),
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
            ("forced/neighbourhood_paper", seen.said_true == lm.answer_ids(probe.target_true)),
            ("generated/neighbourhood_paper", _begins(seen.text, probe.target_true)),
        ]
    return judged


def _begins(text: str, target: str) -> bool:
    return text.strip().casefold().startswith(target.strip().casefold())
