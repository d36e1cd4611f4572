"""Whether a generated text gives an answer: begins with it, and ends the word or number where the answer ends.

Both are compared in one Unicode form (NFC), without case, invisible characters and the white space around them.

A word goes on, so that "Java" is not in "JavaScript", with
- a letter, a digit, an underscore, or a mark that combines with the letter before it; "+" and "#" ("C" is not "C++");
- an apostrophe, a full stop, a hyphen or "&" that a letter or digit follows directly ("O'Brien", "Amazon.com",
  "Jean-Paul", "AT&T"), but for a possessive ("Paris's").
A number, which is an answer that ends in a digit, goes on with
- a digit or a letter ("18th", "18²", "18km"), a sign that a digit follows directly ("18.5", "1,879", "18:30", "1/2"),
  and after a space three digits, its thousands, but for a number of four digits or more without any, or a word for
  thousands or millions ("1 million").
It ends before a dash ("1879-1955", "18-year-old").
An emoji goes on with a skin tone, and with what is joined to it (a man is not a family).

Scripts that put no spaces between words do not show where a word ends; that takes a dictionary.  In Chinese, Japanese,
Thai and the like a text that begins with the answer gives it ("巴黎" in "巴黎是…").  Three ends can be seen all the
same: a foreign word in katakana goes on with katakana, a numeral with numerals ("十" is not in "十八", nor 18 in
"18万"), and a letter with its marks.  Where a script with spaces meets one without, the word has ended (1879 is in
"1879年").
"""

from __future__ import annotations

import unicodedata

import regex

from afteredit.model.scripts import UNSPACED

_EMOJI = r"[\p{Extended_Pictographic}\p{Emoji_Modifier}]\ufe0f?"
_INVISIBLE = regex.compile(  # U+200B is a space between words; U+200D joins emoji
    rf"[\p{{Default_Ignorable_Code_Point}}--[\u200b\u200d]]|(?<!{_EMOJI})\u200d", regex.V1
)
_EMOJI_GOES_ON = regex.compile(r"[\u200d\p{Emoji_Modifier}]")
_SPACE_AROUND = regex.compile(r"\A[\s\u200b]+|[\s\u200b]+\Z")
_WORD_PART = rf"[[\p{{L}}\p{{N}}\ufffd]--[{UNSPACED}]]"
_POSSESSIVE = regex.compile(r"['’]s(?![\p{L}\p{N}])")
_WORD_GOES_ON = regex.compile(rf"{_WORD_PART}|[_+#]|['’.&\-\u2010\u2011]{_WORD_PART}", regex.V1)
_NUMBER_GOES_ON = regex.compile(
    rf"[{_WORD_PART}--\p{{sc=Hang}}]|[만억조천백십]|_|['’]\p{{L}}|[.,:/^'’·٫٬\u2044\u00a0\u2009\u202f]\d"
    r"|[ \u00a0\u202f](?:hundred|thousand|(?:m|b|tr)illion|milliard|tausend|mille|lakh|crore)(?:e|en|n|s|th)?\b",
    regex.V1,
)
_THOUSANDS = regex.compile(r" (?:\d{3}(?!\d)|\d{1,2}\Z)")  # a text may have been cut within the thousands
_UNGROUPED = regex.compile(r"\d{4}\Z")
_KATAKANA_GOES_ON = regex.compile(r"・?[\p{scx=Kana}&&\p{L}]", regex.V1)


def gives_answer(text: str, answer: str) -> bool:
    """Tells whether `text` begins with `answer` and its last word or number ends there."""
    text, answer = _comparable(text), _comparable(answer)
    return bool(answer) and text.startswith(answer) and not _goes_on(answer, text[len(answer) :])


def _comparable(text: str) -> str:
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return _SPACE_AROUND.sub("", _INVISIBLE.sub("", folded))


def _goes_on(answer: str, rest: str) -> bool:
    """Tells whether the word or number that ends the answer goes on with `rest`."""
    last, following = answer[-1], rest[:1]
    if unicodedata.category(following or " ").startswith("M") or (_is_numeral(last) and _is_numeral(following)):
        return True
    if _EMOJI_GOES_ON.match(rest):
        return True
    if last.isdigit():
        if _THOUSANDS.match(rest):
            return _UNGROUPED.search(answer) is None
        is_name = regex.search(r"\p{L}", answer) is not None  # "F-16's" is a possessive, "1990's" a decade
        return _NUMBER_GOES_ON.match(rest) is not None and not (is_name and _POSSESSIVE.match(rest))
    if regex.match(f"[{UNSPACED}]", last):
        return all(map(_KATAKANA_GOES_ON.match, (last, rest)))
    return _WORD_GOES_ON.match(rest) is not None and not _POSSESSIVE.match(rest)


def _is_numeral(character: str) -> bool:
    return character != "" and unicodedata.numeric(character, None) is not None
