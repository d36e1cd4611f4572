"""Scores answers as the code published with Gu et al. (EMNLP 2024) does; conf/task/paper_*.yaml names these functions.

docs/paper_scoring.md says what each number means, and where these functions leave the published code.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

EOS = "<|endoftext|>"  # GPT-2's: `eos_text` in conf/task.  The paper decoded special tokens, so its rules see it
KINDS = {"PER": "Person", "LOC": "Location", "ORG": "Organization", "MISC": "Miscellaneous"}

Scores = dict[str, Any]


def reasoning(doc: Mapping[str, Any], results: Sequence[str]) -> Scores:
    """The gold number stands anywhere in the answer, also within a longer number."""
    answer, gold = results[0], doc["answer"].split("#### ")[1]
    return _scores(gold in answer, any(char.isdigit() for char in answer))


def nli(doc: Mapping[str, Any], results: Sequence[str]) -> Scores:
    """The answer holds "true" for entailment, else "false"."""
    answer = results[0].lower()
    gold = "false" if doc["label"] == "not_entailment" else "true"
    return _scores(gold in answer, "true" in answer or "false" in answer)


def closed_qa(doc: Mapping[str, Any], results: Sequence[str]) -> Scores:
    """The answer holds "yes" or "no" (" not" and " none" hold "no").

    `before_rule`: it is " yes" or " no", as before editing.
    """
    answer, gold = results[0].lower(), "yes" if doc["answer"] else "no"
    return _scores(gold in answer, "yes" in answer or "no" in answer) | {"before_rule": float(answer == f" {gold}")}


def sentiment(doc: Mapping[str, Any], results: Sequence[str]) -> Scores:
    """The answer holds "positive" or "negative"."""
    answer = results[0].lower()
    gold = "positive" if doc["label"] == 1 else "negative"
    return _scores(gold in answer, "positive" in answer or "negative" in answer)


def dialogue(doc: Mapping[str, Any], results: Sequence[str]) -> Scores:
    """The answer holds the gold letter and not "Chi"; `before_rule`: it holds the letter, as before editing."""
    answer = results[0]
    has_gold, may_count = doc["answer"] in answer, "Chi" not in answer
    readable = may_count and any(letter in answer for letter in "ABCD")
    return _scores(has_gold and may_count, readable) | {"before_rule": float(has_gold)}


def open_qa(doc: Mapping[str, Any], results: Sequence[str]) -> Scores:
    """What follows the last "Answer:" begins with an accepted answer or ends with one of a single word.

    Where there is no "Answer:", the text is the whole prompt and answer, and only its last word can be right.
    """
    before, marker, after = f"{doc['passage']} Question: {doc['question']}{results[0]}".rpartition("Answer:")
    words = _normalised(after).split(" ")
    beginnings = [" ".join(words[:n]) for n in range(1, len(words) + 1)] if marker else []
    accepted = set(map(_normalised, doc["answers"]))
    return _scores(not accepted.isdisjoint([*beginnings, words[-1]]), _normalised(results[0].removesuffix(EOS)) != "")


def summarization(doc: Mapping[str, Any], results: Sequence[str]) -> Scores:
    """Gives the mean F1 of ROUGE-1, -2 and -L of the text but for its last 13 characters: EOS, or else its end."""
    text = results[0].split("DR:")[-1][: -len(EOS)]
    if len(text) <= 1:
        return _scores(0.0, False)
    try:
        (rouge,) = _rouge().get_scores(text, doc["summary"])
    except ValueError:  # a text of dots only, at which the published code stops
        return _scores(0.0, False)
    return _scores(sum(score["f"] for score in rouge.values()) / len(rouge), any(char.isalnum() for char in text))


def ner(doc: Mapping[str, Any], results: Sequence[str]) -> Scores:
    """Counts the gold names of one kind that the answer holds; `mean_of_ratios` makes the mean recall of them.

    A sentence without names of this kind counts as one found where the answer is empty, which EOS alone is not; else
    it counts for miscellaneous names, as one not found.
    """
    answer, names = results[0].split("Entity:")[0], doc["names"]
    readable = answer.removesuffix(EOS).strip() != ""
    if names:
        found, wanted = sum(name in answer for name in names), len(names)
    else:
        found, wanted = int(answer == ""), int(answer == "" or doc["kind"] == "MISC")
    return _scores((float(found), float(wanted), doc["kind"]), readable)


def ner_docs(rows: Iterable[Mapping[str, Any]]) -> Any:
    """Returns a data set with four questions about each sentence: one for each kind of names.

    Raises ValueError for a row whose tokens are not texts, one for each tag.
    """
    from datasets import Dataset

    docs = []
    for row in rows:
        tokens, tags = row["tokens"], row["ner_tags"]
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise ValueError("its tokens are no list of texts")
        if len(tokens) != len(tags):
            raise ValueError(f"it has {len(tokens)} tokens and {len(tags)} tags")
        sentence = "".join(token if token in (",", ".") else f" {token}" for token in tokens)[1:]
        begun = [_begun(tag, before) for tag, before in zip(tags, ["O", *tags], strict=False)]
        docs += [{"sentence": sentence, "kind": kind, "word": word, "names": gold_names(tokens, begun, kind)}
                 for kind, word in KINDS.items()]  # fmt: skip
    return Dataset.from_list(docs)


def names_as_text(doc: Mapping[str, Any]) -> str:
    """Returns the names of a question as an answer would list them."""
    return " " + (", ".join(filter(None, doc["names"])) or "none")


def _begun(tag: str, before: str) -> str:
    """Returns the tag with B- where a name begins, which CoNLL-2003's own files mark only between two names."""
    return f"B-{tag[2:]}" if tag.startswith("I-") and before[2:] != tag[2:] else tag


def gold_names(tokens: Sequence[str], tags: Sequence[str], kind: str) -> list[str]:
    """Returns the names of one kind as the published code cuts them out.

    A name reaches to the next "O", over names that follow at once; at the sentence's end its last token is lost, and
    one of a single token is "", which every answer holds.
    """
    names, place = [], 0
    while place < len(tags):
        if tags[place] == f"B-{kind}":
            end = next((i for i in range(place, len(tags)) if tags[i] == "O"), len(tags) - 1)
            names.append(" ".join(tokens[place:end]))
            place = end
        place += 1
    return names


def _scores(score: Any, readable: bool) -> Scores:
    return {"score": float(score) if isinstance(score, bool) else score, "unparseable": float(not readable)}


def _normalised(text: str) -> str:
    """Returns a text in lower case without punctuation, articles and surplus spaces."""
    plain = "".join(char for char in text.lower() if char not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", plain).split())


@cache
def _rouge() -> Any:
    from rouge import Rouge

    return Rouge()
