"""Writing systems that put no spaces between words."""

from __future__ import annotations

import regex

# Chinese, Japanese, Thai, Lao, Khmer, Burmese, Tibetan, Javanese, Lanna and New Tai Lue: their letters and marks.
UNSPACED = "".join(rf"\p{{scx={script}}}" for script in (
    "Han", "Hira", "Kana", "Bopo", "Thai", "Laoo", "Khmr", "Mymr", "Tibt", "Java", "Lana", "Talu"))  # fmt: skip

_LAST_LETTER_UNSPACED = regex.compile(rf"[[{UNSPACED}]&&\p{{L}}][^\p{{L}}]*\Z", regex.V1)


def ends_without_spaces(text: str) -> bool:
    """Tells whether the last letter of a text belongs to a script that puts no spaces between words."""
    return _LAST_LETTER_UNSPACED.search(text) is not None
