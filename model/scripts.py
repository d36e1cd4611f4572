"""Writing systems: which put no spaces between words, and where words and numbers end.

The second is one rule for the subject in a prompt and for the answer in a generated text.

A word goes on, so that "Java" is not in "JavaScript", with
- a letter, a digit, an underscore, or a mark that combines with the letter before it; one of "+#♯♭♮" ("C" is not "C++",
  nor "F" in "F♯ minor") or a raised or lowered sign ("K⁺"), after a letter alone a prime ("x′"), after a capital alone
  "*" ("A* search"), and such a sign, or "-", after itself ("C++");
- a hyphen, the middle dot, the Hebrew maqaf or gershayim, or one of "&@$*", that a letter or digit follows directly
  ("Jean-Paul", "AT&T", "SETI@home", "M*A*S*H", "col·legi", "תל־אביב", "צה״ל"), and a full stop, but for one that ends a
  sentence ("Amazon.com", "U.S.A.", not "Art.It was");
- an apostrophe that a letter follows ("O'Brien", "don't"), but for a possessive and the endings that Turkish puts there
  ("Paris's", "Apollo 10's" but not "1990's"; "Peru'nun").  What stands before an apostrophe begins no word
  ("l'Espagne"), but for O'.
A Korean noun ends before a particle or the copula ("서울" is in "서울은", "서울에서는", "서울입니다", not in "서울시");
which of 은 and 는, 이 and 가 stands there depends on its last sound.

A number goes on with
- a digit, a letter or the sign of a unit ("18th", "18²", "18⁻³", "18km", "18°C", "18€"), and a sign that a digit
  follows directly ("18.5", "1,879", "18:30"), or an ordinal's letters ("1.º", "1.er", "18-й", "18:e");
- what makes it another number: a fraction ("3½", "3 1/2", "3-1/2", "3 and a half", "三分之一"), "%" and "percent", a
  word for thousands or millions ("1 million", "3 млн") in the languages of number_words.py, and after a space three
  digits, its thousands, but for a number of four digits without any.
It ends before another dash ("1879-1955", "18-year-old"), and begins with its minus or, in Turkish, its "%".
An emoji goes on with a skin tone, with what is joined to it (a man is not a family) and with tags (England's flag is
not a black one); two halves make one flag.

Scripts that put no spaces between words do not show where a word ends; that takes a dictionary: any place is one
("巴黎" in "巴黎是…").  Three ends can be seen all the same: a foreign word in katakana goes on with katakana, a numeral
with numerals ("十" is not in "十八", nor 18 in "18万"), and a letter with its marks.  Where a script with spaces meets
one without, the word has ended (1879 is in "1879年").
"""

from __future__ import annotations

import unicodedata

import regex

from afteredit.store.rows.normal_text import UNSPACED
from afteredit.store.rows.number_words import (
    MULTIPLIERS,
    PARTS,
    PERCENT,
    PERCENT_BESIDE,
    PERCENT_SHORT,
    WHOLE_MULTIPLIERS,
)

# \p{Nl}: 〇 is no letter
_LAST_LETTER_UNSPACED = regex.compile(rf"[[{UNSPACED}]&&[\p{{L}}\p{{Nl}}]][^\p{{L}}\p{{Nl}}]*\Z", regex.V1)

_SEEN = 60  # characters looked at on both sides
_WORD = rf"[[\p{{L}}\p{{M}}\p{{N}}_\ufffd]--[{UNSPACED}]]"
_IS_WORD = regex.compile(_WORD, regex.V1)
_END = r"(?![\p{L}\p{N}])"

_TAGS = "\\U000e0020-\\U000e007f"  # within an emoji: of which country the flag is
_TAGGED = regex.compile(rf"[\p{{Extended_Pictographic}}\p{{Emoji_Modifier}}\ufe0f{_TAGS}][{_TAGS}]")
_INVISIBLE = regex.compile(  # U+200B is a space
    rf"[\p{{Default_Ignorable_Code_Point}}--[\u200b\u200d{_TAGS}]]"
    rf"|(?<!\A|[\p{{Extended_Pictographic}}\p{{Emoji_Modifier}}\ufe0f{_TAGS}])[{_TAGS}]+", regex.V1
)  # fmt: skip
_JOINED = regex.compile(r"[\p{M}\p{Emoji_Modifier}\u200d]")  # what no word, letter or emoji begins with
_HALF_FLAG = regex.compile(r"(?<!\p{RI})(?:\p{RI}\p{RI})*\p{RI}\Z")
_KATAKANA = regex.compile(r"[\p{scx=Kana}&&\p{L}]", regex.V1)

# Signs within words: Unicode's Hyphen and, of UAX 29, MidLetter and MidNumLet, but for ":"
_HYPHENS, _APOSTROPHES = "-\u2010\u2011\u058a\u05be\ufe63\uff0d", "'\u2018\u2019\uff07"
_JOINERS = f"{_HYPHENS}&@$*\u00b7\u0387\u2027\u055f\u05f3\u05f4"
_SIGNS_IN_NUMBERS = ".,:/^'`´\u2019·٫٬\u2044\u2215\u2236\u00a0\u2009\u202f．，：／＇"
_RAISED = "⁺⁻⁼⁽⁾₊₋₌₍₎"  # and lowered
_SQUARED_UNITS = "\u3300-\u3357\u3371-\u337a\u3380-\u33df\u33ff"  # such as ㎞, one character
_HEBREW = regex.compile(r"\p{sc=Hebr}")  # its abbreviations hold a quotation mark
_SAME_SENTENCE = regex.compile(r"\p{Lu}(?!\p{Ll})|[^\p{Lu}]")
_NAMED_WITH_SIGNS = regex.compile(r"\p{L}(?:\+\+|[#♯♭♮])\Z")
_REPEATED = regex.compile(r"[\p{L}\p{M}\p{N}_]([-+#♯♭♮*])\1+\Z")
_LONE_LETTER = regex.compile(r"(?<![\p{L}\p{M}\p{N}_])\p{L}\Z")
_LONE_CAPITAL = regex.compile(r"(?<![\p{L}\p{M}\p{N}*_])\p{Lu}\Z")  # of "A*"; "*A*" is emphasis
_POSSESSIVE = regex.compile(rf"[sS]{_END}")
_DECADE = regex.compile(r"(?<!\S)\d*0\Z")
_TURKISH = regex.compile(  # case endings and their like; a vowel alone stands after a consonant
    rf"(?:(?<=[^\W\d_aeıioöuü].)[aeıiuü]|y[aeıiuü]|n?[ıiuü]n|[dt][ae](?:n|ki)?|y?l[ae]|n[ae]|l[ae]r\p{{Ll}}*"
    rf"|[dt][ıiuü]r|l[ıiuü]|s[ıiuü]|n[ıiuü]){_END}"
)
_O_NAME = regex.compile(r"(?<!\p{L})O\Z")

_ON_A_NUMBER = regex.compile(
    rf"[{_WORD}--\p{{sc=Hang}}]|[만억조천백십]|[°˚∘℃℉′″‵‶\p{{Sc}}{_RAISED}{_SQUARED_UNITS}]", regex.V1
)
_NO_LETTER = r"(?![\p{L}\p{M}\p{N}])"
_ENDING = rf"[\p{{L}}\p{{M}}]{{0,3}}{_NO_LETTER}"
_MAKES_ANOTHER = regex.compile(
    rf"[ \u00a0\u2009\u202f]?(?:[%‰‱٪؉؊％﹪]|(?:{PERCENT}){_ENDING}|(?:{PERCENT_SHORT}){_NO_LETTER}"
    rf"|{PERCENT_BESIDE})"
    rf"|[-\u2010\u2011]\p{{sc=Cyrl}}{{1,3}}{_NO_LETTER}|:(?-i:\p{{Ll}}{{1,2}}){_NO_LETTER}"
    rf"|\^\{{|[ \u00a0\u2009\u202f-](?:{PARTS}){_NO_LETTER}|\.(?:[ºª°ᵃᵉᵒʳ]|(?-i:ers?|r[ao]|[ao]s){_NO_LETTER})"
    r"|[ \u00a0\u2009\u202f-](?:\d{1,3}[/\u2044]\d{1,3}(?![\d/])|\d{1,3}[/\u2044]\Z|[¼-¾⅐-⅞])"
    rf"|[ \u00a0\u2009\u202f-](?:(?:{MULTIPLIERS}){_ENDING}|(?:{WHOLE_MULTIPLIERS}){_NO_LETTER}|[万萬亿億兆])"
    r"|[ \u00a0\u2009\u202f]?(?:พัน(?!ธ)|หมื่น|แสน|ล้าน)|分之|분의 ?\p{N}"
    r"|(?:分の|[点點])[\p{N}零一二三四五六七八九十]",
    regex.IGNORECASE,
)
_THOUSANDS = regex.compile(r" (?:\d{3}(?!\d)|\d{1,2}\Z)")  # a text may have been cut within the thousands
_UNGROUPED = regex.compile(r"\d{4}\Z")
_BEFORE_A_NUMBER = regex.compile(r"(?<![\p{L}\p{N})\]])[-\u2212\uff0d%٪％]\Z")  # Turkish writes %18

# The copula after 이, which may be left out after a vowel; not 인 and 네, which make other words ("한국인")
_COPULA = ("다|고|며|면서|자|라|라고|라는|라서|지만|니까|야|죠|지요|군요|구나|네요|에요|었(?:다|습니다|고|으며"
           "|던|지만|는데|어요|죠)")  # fmt: skip
_FORMS = f"이(?:{_COPULA})|인데|인데요|인지|인가|인가요|입니다|입니까|입니다만|입니?\\Z"
_ANY = "의|에|에서|에게|에게서|께|께서|도|만|까지|부터|조차|마저|처럼|같이|보다|한테|하고|밖에|뿐|쯤|" + _FORMS
_CONSONANT = f"은|이|을|과|이나|이랑|이란|이면|이든지|으로|으로서|으로써|{_ANY}"
_VOWEL = (f"는|가|를|와|나|며|랑|란|라고|라는|라서|든지|로|로서|로써|지만|다|야|죠|지요|군요|네요|니까|예요|여요|"
          f"였(?:다|습니다|고|으며|던|지만|는데|어요|죠)|{_ANY}")  # fmt: skip
_SECOND = f"은|는|도|만|의|이|가|을|를|와|과|부터|까지|{_FORMS}"
_AFTER_CONSONANT, _AFTER_L, _AFTER_VOWEL, _AFTER_FOREIGN = (
    regex.compile(rf"(?:{first})(?:{_SECOND})?(?!\p{{Hangul}})")
    for first in (_CONSONANT, f"로|로서|로써|{_CONSONANT}", _VOWEL, f"{_CONSONANT}|{_VOWEL}")
)


def ends_without_spaces(text: str) -> bool:
    """Tells whether the last letter of a text belongs to a script that puts no spaces between words."""
    return _LAST_LETTER_UNSPACED.search(text) is not None


def goes_on(before: str, after: str, name: str = "") -> bool:
    """Tells whether the word or number that ends `before` goes on with `after`.

    `name`: the whole name that ends there, if it is known.  A possessive ends any name; a bare number may be a decade.
    """
    before, after = without_invisible(before)[-_SEEN:], without_invisible(after)[:_SEEN]
    if after[:1] in _APOSTROPHES and _POSSESSIVE.match(after, pos=1) and any(map(str.isalpha, name)):
        return False
    return _one_word(before, after) and not (_is_word_part(before[-1]) and _is_particle(before[-1], after))


def began_before(before: str, after: str) -> bool:
    """Tells whether the word or number that begins `after` began in `before`."""
    before, after = without_invisible(before)[-_SEEN:], without_invisible(after)[:_SEEN]
    if not before or not after:
        return False
    if before[-1] in _APOSTROPHES and after[0].isalpha() and not _HEBREW.match(after[0]):
        return _O_NAME.search(before[:-1]) is not None and after[0].isupper()
    return _one_word(before, after) or (after[0].isdigit() and _BEFORE_A_NUMBER.search(before) is not None)


def _is_word_part(character: str) -> bool:
    """Tells whether a character is part of a word or number in a script that puts spaces between words."""
    return _IS_WORD.match(character) is not None


def without_invisible(text: str) -> str:
    """Returns the text without what is not drawn, but for U+200B, a space, and for what emoji are made of."""
    return text if text.isascii() else _INVISIBLE.sub("", text)


def _one_word(before: str, after: str) -> bool:
    """Tells whether one word or number holds the place between both; a sign within it may stand at either side."""
    if not before or not after:
        return False
    return (
        _adjacent(before, after)
        or _joined_by(before, after[0], after[1:])
        or _joined_by(before[:-1], before[-1], after)
        or _is_another_number(before, after)
        or (after[0].isnumeric() and _is_another_number(before[:-1], before[-1] + after))
    )


def _adjacent(before: str, after: str) -> bool:
    left, right = before[-1], after[0]
    if _JOINED.match(right) or left == "\u200d" or _TAGGED.match(left + right) or all(map(_is_numeral, (left, right))):
        return True
    if regex.match(r"\p{RI}", right) and _HALF_FLAG.search(before):
        return True
    if left.isdigit():
        return _ON_A_NUMBER.match(right) is not None
    if all(map(_KATAKANA.match, (left, right))) or _REPEATED.search(before + right):
        return True
    if right in "*′″‴":
        return (_LONE_CAPITAL if right == "*" else _LONE_LETTER).search(before) is not None
    word = _is_word_part(left) or _NAMED_WITH_SIGNS.search(before) is not None
    return word and (right in "+#♯♭♮" + _RAISED or _is_word_part(right))


def _joined_by(before: str, sign: str, after: str) -> bool:
    """Tells whether a sign stands within one word or number."""
    left, right = before[-1:], after[:1]
    if left.isdigit() and right.isdigit():
        return sign in _SIGNS_IN_NUMBERS
    if sign == "・":
        return all(map(_KATAKANA.match, (left, right)))
    if not _is_word_part(left) or not _is_word_part(right):
        return False
    if sign in _APOSTROPHES:
        return not _is_ending(before, left + sign, after)
    if left.isdigit():
        return False
    if sign == '"':
        return all(map(_HEBREW.match, (left, right)))
    return sign in _JOINERS or (sign == "." and _SAME_SENTENCE.match(after) is not None)


def _is_ending(before: str, left: str, after: str) -> bool:
    """Tells whether what stands after an apostrophe is an ending of the word before it; "1990's" are a decade."""
    if _POSSESSIVE.match(after):
        return _DECADE.search(before) is None
    return _TURKISH.match(left + after, pos=len(left)) is not None


def _is_another_number(before: str, after: str) -> bool:
    if not before or not _is_numeral(before[-1]):
        return False
    if _THOUSANDS.match(after) and not _UNGROUPED.search(before):
        return True
    return _MAKES_ANOTHER.match(after) is not None


def _is_particle(left: str, after: str) -> bool:
    """Tells whether a Korean particle or copula begins `after`, in the form that it takes after `left`."""
    if left.isdigit():
        return False
    if not "가" <= left <= "힣":
        return _AFTER_FOREIGN.match(after) is not None
    last_sound = (ord(left) - ord("가")) % 28  # 0: a vowel, 8: l
    form = {0: _AFTER_VOWEL, 8: _AFTER_L}.get(last_sound, _AFTER_CONSONANT)
    return form.match(after) is not None


def _is_numeral(character: str) -> bool:
    return unicodedata.numeric(character, None) is not None
