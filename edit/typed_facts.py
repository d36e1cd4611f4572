"""Facts typed on the command line: "The mother tongue of {Danielle Darrieux} is → English"."""

from __future__ import annotations

import re
from collections.abc import Sequence

from afteredit.edit.request import PLACEHOLDER, EditRequest
from afteredit.store.errors import BadInput
from afteredit.store.rows.normal_text import normal_form, shown

ARROWS = ("[→⟶⇒➔➜]", "[-－]+[>＞]")
_MARKED = re.compile(r"(?<!\$)\{([^{}]+)\}")
WIDE_BRACES = str.maketrans("｛｝", "{}")  # of Chinese and Japanese keyboards
FORM = 'edits.fact="The capital of {Peru} is → Oslo": braces around the subject, and → or -> before the new answer'


def typed_facts(
    facts: Sequence[str], true: str | None, paraphrases: Sequence[str], neighbourhood: Sequence[str]
) -> list[EditRequest]:
    """Returns the request of each fact.  What is more than the fact itself belongs to one that is alone.

    Raises BadInput for a text that does not say a fact in the form that is asked for.
    """
    if len(facts) != 1 and (true is not None or paraphrases or neighbourhood):
        raise BadInput(f"edits.fact_true, edits.fact_paraphrases and edits.fact_neighbourhood belong to one fact, but "
                       f"edits.fact gives {len(facts)}; write several facts into a file: edits=my "
                       "edits.file=<file>")  # fmt: skip
    requests = []
    for number, text in enumerate(facts, 1):
        parts = _parts(text)
        own = _plain(paraphrases, "paraphrases", parts[0])
        of_others = _plain(neighbourhood, "neighbourhood", parts[0])
        try:
            requests.append(EditRequest(
                f"fact-{number}", *parts, target_true=true, paraphrases=own, neighbourhood=of_others,
                neighbourhood_answers=("",) * len(of_others), place=f"edits.fact={shown(text)}"))  # fmt: skip
        except BadInput as problem:
            raise BadInput(f"edits.fact={shown(text)}: {problem}") from None
    return requests


def _plain(prompts: Sequence[str], key: str, subject: str) -> tuple[str, ...]:
    """Returns other prompts without the braces around a subject.  Raises BadInput for an empty one."""
    if not all(map(normal_form, prompts)):
        raise BadInput(f"edits.fact_{key} holds an empty prompt; write the prompts, [a,b], or leave the key out")
    return tuple(_MARKED.sub(r"\1", prompt) if _marks_subject(prompt, subject) else prompt for prompt in prompts)


def _marks_subject(prompt: str, subject: str) -> bool:
    """Returns whether braces mark a subject: one pair does, that is neither `${…}` nor, but for the fact's own subject,
    what other tools write for {}."""
    marked = _MARKED.findall(prompt)
    return len(marked) == 1 and (marked[0] == subject or not PLACEHOLDER.search(f"{{{marked[0]}}}"))


def _parts(text: str) -> tuple[str, str, str]:
    """Returns the subject, the prompt with {} in its place, and the new answer."""
    parts = re.split(next((arrow for arrow in ARROWS if re.search(arrow, text)), ARROWS[0]), text)
    sentence = parts[0] if "{" in parts[0] else parts[0].translate(WIDE_BRACES)
    marked = re.fullmatch(r"([^{}]*)\{([^{}]+)\}([^{}]*)", sentence)
    if len(parts) != 2 or marked is None:
        of_its_own = "; a subject that holds braces itself is written in a file: edits=my edits.file=<file>"
        raise BadInput(f"edits.fact={shown(text)} is no fact; write {FORM}{of_its_own if '{' in text else ''}")
    return marked[2], f"{marked[1]}{{}}{marked[3]}", parts[1]
