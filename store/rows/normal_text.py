"""One normal form for the texts of rows, so that two spellings of one text are one text."""

from __future__ import annotations

import unicodedata
from typing import Any

import regex

from afteredit.store.errors import BadInput

SPACES = "".join(char for char in map(chr, range(0x3001)) if char.isspace())  # non-breaking and wide ones too
ZERO_WIDTH = "".join(map(chr, (0xAD, 0x61C, 0x180E, *range(0x200B, 0x2010), *range(0x202A, 0x202F),
                               *range(0x2060, 0x2065), *range(0x2066, 0x2070), 0xFEFF)))  # fmt: skip
BLANKS = "\u115f\u1160\u2800\u3164\uffa0"  # letters that print nothing
# What no text holds and exports leave: control characters that are no spaces (a field of fixed width is filled with
# NUL), and what stands in the place of a picture
_LEFT_OVER = "".join(
    char for char in map(chr, range(0xA0)) if unicodedata.category(char) == "Cc" and char not in SPACES
)
LEFT_OVER = _LEFT_OVER + "\ufff9\ufffa\ufffb\ufffc"
_SELECTORS = (0x34F, *range(0x180B, 0x180E), 0x180F, *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))  # of glyphs
# All marks that Unicode calls apostrophe, single quotation mark, prime, turned or reversed comma, half ring, accent
# (one that stands alone), geresh or saltillo; and the double ones
APOSTROPHES, QUOTES = (
    "`´ʹʻʼʽʾʿˊˋˎˏ˒˓˴ՙ՚׳ߴߵ‘’‚‛′‵‹›❛❜❟❮❯Ꞌꞌ＇｀",
    "«»ʺ˝ˮ˵˶״“”„‟″‶❝❞❠⹂〝〞〟＂🙶🙷🙸",
)
BRACKETS = "〈〉《》「」『』︽︾︿﹀﹁﹂﹃﹄｢｣"  # the quotation marks of East Asia
DOTS, TILDES = "·•‧∙⋅・･ㆍ⸱", "~∼～"  # of lists, of Japanese names and of Korean; a wave dash, as code pages differ
DASHES = "֊־᐀᠆‐‑‒–—―⸗⸚⸺⸻⹀⹝〜〰゠︱︲﹘﹣－𐺭−"  # Unicode's class Pd, and the minus
# Marks that writing may leave out: what stretches a word (Arabic, N'Ko, Mongolian), vowels and reading signs of Arabic
# and Hebrew
_OPTIONAL = dict.fromkeys((0x640, 0x7FA, 0x180A, *range(0x64B, 0x653), 0x670, *range(0x6D6, 0x6DD),
                           *range(0x6DF, 0x6E5), 0x6E7, 0x6E8, *range(0x6EA, 0x6EE), *range(0x591, 0x5BE), 0x5BF,
                           0x5C1, 0x5C2, 0x5C4, 0x5C5, 0x5C7))  # fmt: skip
# Malayalam's chillus and Bengali's khanda ta, which old texts write as a consonant, its virama and a joiner
_WITHOUT_VOWEL = {"ൺ": "ണ്", "ൻ": "ന്", "ർ": "ര്", "ൽ": "ല്", "ൾ": "ള്", "ൿ": "ക്", "ৎ": "ত্"}
_IN_SPELLING = (
    str.maketrans(
        dict.fromkeys(APOSTROPHES, "'")
        | dict.fromkeys(QUOTES + BRACKETS, '"')
        | dict.fromkeys(DASHES + TILDES, "-")
        | dict.fromkeys(DOTS, "·")
        | {"∥": "‖", "ي": "ی", "ى": "ی", "ك": "ک"}
        | _WITHOUT_VOWEL
    )
    | dict.fromkeys(map(ord, ZERO_WIDTH + BLANKS + LEFT_OVER))
    | dict.fromkeys(_SELECTORS)
)
# After folding; a cedilla is a comma below: Romanian ș and ț, as old code pages write them
_IN_FOLDED = _IN_SPELLING | _OPTIONAL | {0x327: "\u0326"}
_SINGLE_QUOTED = regex.compile(r"(?<![\p{L}\p{N}])'([^'\"]+)'(?![\p{L}\p{N}])")
_BESIDE_MARKS = regex.compile(r" (?=[\p{P}\p{S}])|(?<=[\p{P}\p{S}]) ")
# The scripts in whose lines Unicode (UAX 14) sees no words: a dictionary must find them (line-breaking class SA: from
# Thai to Ahom), or a line may break between any two letters (ID: from Han to Nushu) or syllables (AK, AS: from Balinese
# to Makasar).  Tibetan puts a dot between syllables, not between words.  Korean, of class ID too, has spaces.
UNSPACED = "".join(rf"\p{{scx={script}}}" for script in (
    "Thai", "Laoo", "Khmr", "Mymr", "Lana", "Tale", "Talu", "Tavt", "Ahom", "Han", "Hira", "Kana", "Bopo", "Yiii",
    "Tang", "Nshu", "Bali", "Java", "Kawi", "Cham", "Batk", "Brah", "Diak", "Gran", "Maka", "Tutg", "Gukh",
    "Jurc", "Seal", "Tibt"))  # fmt: skip
_BESIDE_UNSPACED = regex.compile(rf"(?<=[{UNSPACED}]) | (?=[{UNSPACED}])", regex.V1)
MOST_SHOWN = 200  # characters of a value in a message


def normal_form(text: str) -> str:
    """Returns the text in NFC, with line feeds as line ends, and at its ends no spaces nor what is not drawn.

    Raises BadInput for half a surrogate pair, which is no text.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadInput(f"{shown(text)} holds half a surrogate pair, which is no text") from None
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    return text.strip(SPACES + ZERO_WIDTH + BLANKS + LEFT_OVER)


def spelling(text: str) -> str:
    """Returns what all spellings of a text share: for comparisons, never for a model.

    Upper and lower case, kinds and numbers of spaces, those beside a mark ("du Pérou ?", "J. K. Rowling", "AC / DC") or
    a script without spaces ("iPhone 的制造商"), zero-width characters, kinds of apostrophes, quotes, dashes, dots and
    digits, Persian and Arabic forms of a letter, a cedilla and a comma below, Indic letters that are also written as
    two, Arabic and Hebrew vowel marks, what stretches a word, and compatible forms such as full-width letters make no
    difference; those that mean something else, as ² does, do.
    """
    plain = text.translate(_IN_SPELLING)
    plain = plain if plain.isascii() else "".join(map(_plain, plain))
    folded = unicodedata.normalize("NFC", plain).casefold().replace("i\u0307", "i")  # İ is an I of Turkish
    if not text.isascii():  # folding makes marks of its own: ŉ is an apostrophe and n
        folded = unicodedata.normalize("NFD", folded).translate(_IN_FOLDED)
    spaced = " ".join(unicodedata.normalize("NFC", folded).split())
    spaced = _SINGLE_QUOTED.sub(r'"\1"', spaced.replace("''", '"'))
    return _BESIDE_MARKS.sub("", spaced if spaced.isascii() else _BESIDE_UNSPACED.sub("", spaced))


def _plain(char: str) -> str:
    if char.isdecimal():
        return str(unicodedata.decimal(char))
    means_else = unicodedata.decomposition(char).startswith(("<super>", "<sub>", "<fraction>", "<circle>"))
    return char if means_else else unicodedata.normalize("NFKC", char)


def shown(value: Any) -> str:
    """Returns a value as a message shows it: invisible characters are escaped, a long value is cut."""
    text = repr(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}… ({len(text)} characters)"
