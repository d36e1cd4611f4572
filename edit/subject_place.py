"""Where the subject stands in a prompt: as a whole word, in the one place where it can be meant."""

from __future__ import annotations

import regex

from afteredit.model.scripts import UNSPACED
from afteredit.store.errors import BadInput
from afteredit.store.rows.normal_text import shown

_WORD_PART = regex.compile(rf"[[\p{{L}}\p{{M}}\p{{N}}_]--[{UNSPACED}]]", regex.V1)
_HYPHENS = ("-", "\u2010", "\u2011")  # "Jean" is not in "Jean-Paul"
_MINUS = ("-", "\u2212")
_JOINERS = ("\u200c", "\u200d")
_JOINED = regex.compile(r"[\p{M}\p{Emoji_Modifier}\u200c\u200d]")  # what no word, letter or emoji begins with
_HALF_FLAG = regex.compile(r"(?<!\p{RI})(?:\p{RI}\p{RI})*\p{RI}\Z")  # a flag is two regional indicators
_IN_NUMBER = (".", ",", ":", "/", "'", "\u2019")  # 18.5, 1,879, 18:30, 1/2
_GOES_ON = regex.compile(  # C++, C#, AT&T, Amazon.com, O'Brien, but neither Peru's nor Peru'nun
    rf"[+#]|&{_WORD_PART.pattern}|\.\p{{Ll}}|['\u2019](?!S(?!{_WORD_PART.pattern}))\p{{Lu}}", regex.V1
)
_PARTICLE = regex.compile(r"\p{Hangul}")  # Korean particles follow a noun without a space


def with_braces(subject: str, prompt: str) -> str:
    """Returns the prompt with {} where the subject stands.

    A prompt with {} says the place itself, unless these braces are the subject's own.  Raises BadInput where the
    subject stands in no place, or in several.
    """
    places = whole_words(subject, prompt)
    if "{}" in prompt and not ("{}" in subject and places):
        return prompt
    if len(places) == 1:
        return f"{prompt[: places[0]]}{{}}{prompt[places[0] + len(subject) :]}"
    if places:
        raise BadInput(f"the subject {shown(subject)} stands {len(places)} times in the prompt {shown(prompt)}; write "
                       "{} in its place")  # fmt: skip
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
    """Returns the places at which the subject stands in `text` and is no part of a longer word or number.

    Scripts that put no spaces between words do not show where a word ends: any place is one.
    """
    places, at = [], text.find(subject) if subject else -1
    while at >= 0:
        places.append(at)
        at = text.find(subject, at + 1)
    return [at for at in places if not _begins_within(text, at) and not _ends_within(text, at + len(subject))]


def _cuts_flag(text: str, at: int) -> bool:
    return _HALF_FLAG.search(text[:at]) is not None and regex.match(r"\p{RI}", text[at:]) is not None


def _begins_within(text: str, at: int) -> bool:
    """Tells whether a word or number that began before `at` goes on there."""
    before = text[:at]
    if _cuts_flag(text, at):
        return True
    if text[at].isdigit() and before.endswith(_IN_NUMBER):
        return before[-2:-1].isdigit()
    if text[at].isdigit() and before.endswith(_MINUS):
        return True
    if before.endswith("&"):
        return _is_one_word(before[-2:-1], text[at])
    return _is_one_word(before[-2:-1] if before.endswith(_HYPHENS) else before[-1:], text[at])


def _ends_within(text: str, at: int) -> bool:
    """Tells whether the word or number that stands before `at` goes on there."""
    after = text[at:]
    if _cuts_flag(text, at):
        return True
    if text[at - 1].isdigit() and after.startswith(_IN_NUMBER):
        return after[1:2].isdigit()
    if after.startswith(_HYPHENS):
        return _is_one_word(text[at - 1], after[1:2])
    if _GOES_ON.match(after) and not text[at - 1].isdigit():
        return text[at - 1] in "+#" or _WORD_PART.match(text[at - 1]) is not None
    return _is_one_word(text[at - 1], after[:1]) and not _PARTICLE.match(after)


def _is_one_word(left: str, right: str) -> bool:
    if left in _JOINERS or _JOINED.match(right):
        return left != ""
    return _WORD_PART.match(left) is not None and _WORD_PART.match(right) is not None
