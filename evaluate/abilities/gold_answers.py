"""Holds the gold answer of a row against the filter and the metric of its task, before anything is measured.

A row whose gold answer is wrong by them counts every model as wrong; one that is right where nothing is said counts
silence as right.  lm-eval says nothing of either.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from afteredit.store.rows.normal_text import shown


def refuse_gold(task: Any, row: Mapping[str, Any], headline: str, config: Mapping[str, Any]) -> None:
    """Raises ValueError where a gold answer is no text, or not right by the task's own filter and metric."""
    gold = task.doc_to_target(row)
    golds = gold if isinstance(gold, list) else [gold]
    one = "process_results" in config  # our own scores know one gold answer
    if not golds or not all(isinstance(text, str) and text.strip() for text in golds) or (one and golds is gold):
        raise ValueError(f"the answer is {shown(gold)}; allowed: a text{'' if one else ', or a list of texts'}")
    if _is_known(headline, config):
        for text in golds:
            if not any(_is_right(_score(task, row, headline, way)) for way in _ways(text, config)):
                raise ValueError(f"the answer {shown(text)} is itself wrong by the filter and metric ({headline}) of "
                                 "the task; allowed: an answer that they count as right")  # fmt: skip


def silence_is_right(task: Any, row: Mapping[str, Any], headline: str, config: Mapping[str, Any]) -> bool:
    """Tells whether a model that says nothing scores: the metric leaves nothing of a gold answer such as "!!!"."""
    if not _is_known(headline, config) or "process_docs" in config:
        return False
    score = _score(task, row, headline, "")
    return score is not None and score[0] > 0


def _is_known(headline: str, config: Mapping[str, Any]) -> bool:
    """Tells whether the headline is a share, 1 where all is right; what another metric gives is not known."""
    return headline == "exact_match" or str(config.get("process_results")).startswith("afteredit.evaluate.abilities.")


def _ways(text: str, config: Mapping[str, Any]) -> Iterator[str]:
    """Yields the texts in which a model may give an answer: as it is, after the words that a filter looks for, and
    with the sign that ends it."""
    yield text
    yield text + config.get("generation_kwargs", {}).get("eos_text", "")
    for step in (step for part in config.get("filter_list") or [] for step in part["filter"]):
        prefix = step.get("regex_pattern", "").split("(")[0]
        if prefix and not set(prefix) & set(r"\.[]{}?*+^$|"):
            yield prefix + text


def _score(task: Any, row: Mapping[str, Any], headline: str, text: str) -> tuple[float, ...] | None:
    """Returns the numerator and the denominator of a text's score, and its group if it has one, as lm-eval gives them;
    None where the task has no such metric."""
    until = task.config.generation_kwargs.get("until") or []
    ends = [text.find(stop) for stop in ([until] if isinstance(until, str) else until) if stop in text]
    answers: Any = [[text[: min(ends, default=len(text))]]]
    for make_filter in task._filters[-1].filters:  # lm-eval applies them to requests only
        answers = make_filter().apply(answers, [row])
    score = task.process_results(row, list(answers)).get(headline)
    return score if isinstance(score, tuple) or score is None else (float(score), 1.0)


def _is_right(score: tuple[float, ...] | None) -> bool:
    """Tells whether an answer is right: fully, but for a share of overlap such as ROUGE, which one word cannot fill,
    and for a score of groups, which no row fills alone."""
    if score is None or len(score) > 2:
        return True
    numerator, denominator = score
    return numerator > 0 if denominator == 1.0 else numerator == denominator
