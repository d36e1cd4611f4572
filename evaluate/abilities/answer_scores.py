"""Scores that lm-eval lacks; `conf/task/*.yaml` names them by dotted path (`process_results`, `aggregation`).

Each returns, per example, a number, or a (numerator, denominator) pair for scores that are ratios over all examples, or
a (numerator, denominator, group) triple for scores that are means of such ratios over groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

Entity = tuple[str, str]  # (type, text)
Triple = tuple[float, float, str]


def ratio_of_sums(pairs: Iterable[tuple[float, float]]) -> float:
    """Returns Σ numerators / Σ denominators: micro-averaged F1 from (2·true positives, predicted + gold)."""
    pairs = list(pairs)
    denominator = sum(d for _, d in pairs)
    return sum(n for n, _ in pairs) / denominator if denominator else 0.0


def mean_of_ratios(triples: Iterable[Triple]) -> float:
    """Returns the mean of the groups' Σ numerators / Σ denominators, over the groups that count anything."""
    return ratio_of_sums(as_pairs(list(triples)))


def as_pairs(scores: Sequence[float | tuple[float, float] | Triple]) -> list[tuple[float, float]]:
    """Returns numerators and denominators of which Σ / Σ is the score over all examples, whatever its kind."""
    totals: dict[str, float] = {}
    for score in scores:
        if isinstance(score, tuple) and len(score) == 3:
            totals[score[2]] = totals.get(score[2], 0.0) + score[1]
    pairs = []
    for score in scores:
        numerator, denominator, *group = score if isinstance(score, tuple) else (score, 1.0)
        total = totals[group[0]] or 1.0 if group else 1.0
        pairs.append((float(numerator) / total, float(denominator) / total))
    return pairs


def entity_f1(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """Returns what micro-averaged F1 over entities of the right text and type is made from.

    An answer reads `Anna Berg (PER); Oslo (LOC)`, or `none`; an answer with neither is unparseable.
    """
    gold = _counts(gold_entities(doc["tokens"], doc["ner_tags"]))
    predicted, parsed = read_entities(results[0])
    predicted_counts = _counts(predicted)
    hits = sum(min(n, predicted_counts.get(entity, 0)) for entity, n in gold.items())
    return {
        "f1": (2.0 * hits, float(sum(predicted_counts.values()) + sum(gold.values()))),
        "unparseable": 0.0 if parsed else 1.0,
    }


def entities_as_text(doc: Mapping[str, Any]) -> str:
    """Returns the gold answer in the form that `entity_f1` reads, for lm-eval's `doc_to_target`."""
    entities = gold_entities(doc["tokens"], doc["ner_tags"])
    return "; ".join(f"{text} ({kind})" for kind, text in entities) if entities else "none"


def gold_entities(tokens: Sequence[str], tags: Sequence[str]) -> list[Entity]:
    """Returns the entities of an IOB2-tagged sentence, in order.  Raises ValueError where tags are missing or over."""
    if len(tokens) != len(tags):
        raise ValueError(f"{len(tokens)} tokens have {len(tags)} tags; allowed: one tag for each token")
    entities: list[Entity] = []
    words: list[str] = []
    kind = ""
    for token, tag in [*zip(tokens, tags, strict=True), ("", "O")]:
        if words and not (tag.startswith("I-") and tag[2:] == kind):
            entities.append((kind, " ".join(words)))
            words = []
        if tag != "O":
            kind = tag[2:]
            words.append(token)
    return entities


def read_entities(answer: str) -> tuple[list[Entity], bool]:
    """Returns the entities of a generated line, and whether it could be read at all."""
    line = answer.strip().splitlines()[0] if answer.strip() else ""
    if line.lower().rstrip(".") == "none":
        return [], True
    entities = []
    for part in line.split(";"):
        text, bracket, rest = part.strip().rstrip(".").rpartition("(")
        kind = rest.rstrip(")").strip().upper()
        if bracket and kind in ("PER", "LOC", "ORG", "MISC") and text.strip():
            entities.append((kind, text.strip()))
    return entities, bool(entities)


def rouge_mean(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Returns the mean F-measure of ROUGE-1, -2 and -L (the rouge-score package, with stemming)."""
    answer = results[0].strip()
    scores = _rouge().score(doc["summary"], answer)
    return {
        "rouge": sum(score.fmeasure for score in scores.values()) / len(scores),
        "unparseable": 0.0 if answer else 1.0,
    }


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)


def _counts(entities: Iterable[Entity]) -> dict[Entity, int]:
    counts: dict[Entity, int] = {}
    for kind, text in entities:
        key = (kind, text.casefold())
        counts[key] = counts.get(key, 0) + 1
    return counts
