"""Whether a generated text gives an answer: begins with it, and ends the word or number where the answer ends.

Both are compared in one Unicode form (NFC), without case, invisible characters and the white space around them.
Where a word or number ends says model/scripts.py, as for the subject in a prompt.
"""

from __future__ import annotations

import unicodedata

import regex

from afteredit.model.scripts import goes_on

_EMOJI = r"[\p{Extended_Pictographic}\p{Emoji_Modifier}]\ufe0f?"
_TAGS = "\\U000e0020-\\U000e007f"  # of an emoji, as in the flag of England
_INVISIBLE = regex.compile(  # U+200B is a space between words; U+200D joins emoji
    rf"[\p{{Default_Ignorable_Code_Point}}--[\u200b\u200d{_TAGS}]]|(?<!{_EMOJI})\u200d|(?<![\p{{So}}{_TAGS}])[{_TAGS}]+",
    regex.V1,
)
_SPACE_AROUND = regex.compile(r"\A[\s\u200b]+|[\s\u200b]+\Z")


def gives_answer(text: str, answer: str) -> bool:
    """Tells whether `text` begins with `answer` and its last word or number ends there."""
    text, folded = _plain(text), _folded(_plain(answer))
    if not folded or not _folded(text).startswith(folded):
        return False
    lengths = (n for n in range(1, len(text) + 1) if _folded(text[:n]) == folded)  # ß is folded to two letters
    end = next(lengths, None)
    return end is not None and not goes_on(text[:end], text[end:], answer)


def _plain(text: str) -> str:
    return _SPACE_AROUND.sub("", _INVISIBLE.sub("", unicodedata.normalize("NFC", text)))


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text.casefold().replace("i\u0307", "i"))  # İ is an I of Turkish
