"""Where the subject stands in a prompt: as a whole word, in the one place where it can be meant."""

from __future__ import annotations

from enum import Enum

from afteredit.model.scripts import began_before, goes_on
from afteredit.store.errors import BadInput
from afteredit.store.rows.normal_text import shown


class SubjectPlace(Enum):
    """Which of its places counts where a subject stands in a prompt several times."""

    only = "only"  # none: such a prompt is refused
    first = "first"
    last = "last"


def with_braces(subject: str, prompt: str, which: SubjectPlace = SubjectPlace.only) -> str:
    """Returns the prompt with {} where the subject stands.

    A prompt with {} says the place itself, unless these braces are the subject's own.  Raises BadInput where the
    subject stands in no place, or in several of which none counts.
    """
    places = whole_words(subject, prompt)
    if "{}" in prompt and not ("{}" in subject and places):
        return prompt
    if len(places) == 1 or (places and which is not SubjectPlace.only):
        place = places[-1] if which is SubjectPlace.last else places[0]
        return f"{prompt[:place]}{{}}{prompt[place + len(subject) :]}"
    if places:
        raise BadInput(f"the subject {shown(subject)} stands {len(places)} times in the prompt {shown(prompt)}; write "
                       "{} in its place, or say which counts (++edits.subject_place=first or last)")  # fmt: skip
    how = " but as part of a longer word" if subject and subject in prompt else ""
    raise BadInput(f"the subject {shown(subject)} does not stand in the prompt {shown(prompt)}{how}; write it there in "
                   "the same spelling, or {} in its place")  # fmt: skip


def filled(subject: str, prompt: str) -> str:
    """Returns a prompt with the subject in place of {}, unless these braces are the subject's own."""
    if "{}" not in subject:
        return prompt.replace("{}", subject)
    if whole_words(subject, prompt):
        return prompt
    return subject.join(part.replace("{}", subject) for part in prompt.split(subject))


def whole_words(subject: str, text: str) -> list[int]:
    """Returns the places at which the subject stands in `text` and is no part of a longer word or number."""
    places, at = [], text.find(subject) if subject else -1
    while at >= 0:
        end = at + len(subject)
        if not began_before(text[:at], text[at:]) and not goes_on(text[:end], text[end:], subject):
            places.append(at)
        at = text.find(subject, at + 1)
    return places
