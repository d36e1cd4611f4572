"""Whether a generated text gives an answer: begins with it, and ends the word or number where the answer ends.

Both are compared in one Unicode form (NFC), without case, invisible characters and the white space around them.
Where a word or number ends says model/scripts.py, as for the subject in a prompt.
"""

from __future__ import annotations

import unicodedata

import regex

from afteredit.model.scripts import goes_on, without_invisible

_EMOJI = r"[\p{Extended_Pictographic}\p{Emoji_Modifier}]\ufe0f?"
_LOOSE_JOINER = regex.compile(rf"(?<!{_EMOJI})\u200d")  # U+200D joins emoji
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
    return _SPACE_AROUND.sub("", _LOOSE_JOINER.sub("", without_invisible(unicodedata.normalize("NFC", text))))


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text.casefold().replace("i\u0307", "i"))  # İ is an I of Turkish
