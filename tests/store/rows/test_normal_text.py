"""Two spellings of one text are one text, and a text is changed at its ends and in its Unicode form only."""

import re
import sys
import unicodedata

import pytest

from afteredit.store.rows.normal_text import APOSTROPHES, DASHES, QUOTES, normal_form, shown, spelling

ENDS = ["", " ", "\t\n", "\u00a0", "\u202f", "\u3000", "\u2028", "\u200b", "\ufeff", "\u2060", "\u200e", "\u00ad",
        "\u00a0 \u200b\u3000\ufeff", "\u3164", "\0\0", "\x1b", "\x9f", "\ufffc", "\ufffb"]  # fmt: skip


@pytest.mark.parametrize("end", ENDS)
def test_white_space_and_what_is_invisible_is_left_out_at_the_ends_only(end):
    assert normal_form(f"{end}New{end}York{end}") == f"New{end}York".replace("\r\n", "\n")


def test_a_selector_of_a_glyph_stays():
    assert normal_form("❤\ufe0f ") == "❤\ufe0f"


def test_texts_are_in_nfc_with_line_feeds():
    assert normal_form("Peru\u0301\r\nLima\rCuzco") == "Perú\nLima\nCuzco"
    flag = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"  # England's, in seven characters
    assert normal_form(f" {flag} ") == flag and normal_form("می\u200cخواهم") == "می\u200cخواهم"


SAME = [("Danielle Darrieux", "danielle\u00a0 DARRIEUX "), ("Perú", "Peru\u0301"), ("straße", "STRASSE"),
        ("Darrieux", "Dar\u00adrie\u200bux"), ("JAPAN", "ＪＡＰＡＮ"),
        ("❤\ufe0f", "❤"), ("葛\U000e0100", "葛"), ("X\u034fY", "XY"), ("ᠠ\u180b", "ᠠ"), ("X\u206aY", "XY"),
        *((f"{opening}Quill{closing}", '"Quill"') for opening, closing in ("„“", "«»", "‟”", "″″")),
        *((f"{opening}Quill{closing}", '"Quill"') for opening, closing in ("「」", "『』", "｢｣", "《》", "〈〉")),
        *((f"{opening}Quill{closing}", '"Quill"') for opening, closing in ("﹁﹂", "‘’")),
        ("of 'Quill' by", 'of "Quill" by'), ("``Quill''", '"Quill"'),
        *((f"O{mark}Brien", "O'Brien") for mark in "’‚‛‹›′"),
        ("du Pérou\u202f?", "du Pérou?"), ("du Pérou ?", "du Pérou?"), ("« Nord »", '"Nord"'), ("à 5 %", "à 5%"),
        ("iPhone 的制造商是", "iPhone的制造商是"), ("法国 的 首都", "法国的首都"), ("東京 2020", "東京2020"),
        ("ข้าว ไทย", "ข้าวไทย"), ("J. K. Rowling", "J.K. Rowling"), ("J.K.Rowling", "J. K.  Rowling"),
        ("新たなる〜希望", "新たなる～希望"), ("ジャン・レノ", "ジャン·レノ"),
        ("한ㆍ미", "한·미"), ("‖x‖", "∥x∥"), ("علي كريم", "علی کریم"),
        ("۱۸", "18"),
        ("ŉ land", "'n land"), ("Ŀ", "l·"), ("⁈", "?!"), ("\u1fefn", "'n"),
        ("محـــمد", "محمد"), ("مُحَمَّد", "محمد"), ("שָׁלוֹם", "שלום"), ("\ufb2aלום", "שלום"), ("١٨", "१८"),
        ("Timişoara", "Timișoara"), ("Galaţi", "Galați"), ("കാൻ", "കാന്\u200d"), ("അവൾ", "അവള്\u200d"),
        ("উৎসব", "উত্\u200dসব"), ("AC / DC", "AC/DC"), ("Jean - Paul", "Jean–Paul"), ("AT & T", "AT&T"), ("5 €", "5€"),
        ("İzmir", "i\u0307zmir"), ("İzmir", "izmir"), ("Ǆ", "ǆ")]  # fmt: skip


@pytest.mark.parametrize(("text", "other"), SAME)
def test_spellings_of_one_text_compare_equal(text, other):
    assert spelling(text) == spelling(other)


def test_the_spelling_of_a_spelling_is_itself():
    """Folding and compatible forms make characters (apostrophes, dots, marks) that are taken up like any other."""
    texts = [f"a{chr(code)}b" for code in (*range(0x3100), *range(0xF900, 0x10000))]
    accents = [text for text in texts if unicodedata.normalize("NFKD", text[1])[:1] == " "]  # that stand alone: ¨
    assert {text for text in texts if spelling(spelling(text)) != spelling(text)} <= set(accents)


def test_every_mark_that_stands_for_an_apostrophe_or_a_quote_is_one():
    named = re.compile(r"APOSTROPHE|PRIME|QUOTATION MARK|(GRAVE|ACUTE) ACCENT|LETTER (TURNED|REVERSED) COMMA|HALF RING"
                       r"|GERESH|GERSHAYIM")  # fmt: skip
    spacing = ("Po", "Pi", "Pf", "Ps", "Pe", "Sk", "Lm", "So")
    double, single = [], []
    for char in map(chr, range(sys.maxunicode + 1)):
        name = unicodedata.name(char, "")
        if unicodedata.category(char) in spacing and named.search(name) and not re.search("TRIPLE|QUADRUPLE", name):
            is_double = re.search(r"DOUBLE|^QUOTATION|WIDTH QUOTATION|GERSHAYIM", name)
            (double if is_double else single).append(char)
    saltillo = "\ua78b\ua78c"  # an apostrophe that is a letter, as in Nahuatl
    assert set(single) | set(saltillo) == {"'", *APOSTROPHES} and set(double) == {'"', *QUOTES}
    for mark in "\u02bb\u02bc\u02bd\u2018\u2019\u2032\u00b4`":
        assert spelling(f"Hawai{mark}i") == "hawai'i"


def test_every_dash_is_one():
    dashes = {char for char in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(char) == "Pd"}
    assert dashes | {"\u2212"} == {"-", *DASHES}  # and the minus
    assert {spelling(f"Blade Runner {dash} Final Cut") for dash in DASHES} == {"blade runner-final cut"}


def test_other_texts_do_not():
    assert (
        len(
            {
                spelling(text)
                for text in (
                    "Peru",
                    "Perú",
                    "Per u",
                    "Peru.",
                    "巴黎",
                    "巴里",
                    "서울 시",
                    "서울시",
                    "6' 2",
                    '6" 2',
                    "the '90s' x",
                    'x"y',
                    "قرآن",
                    "قران",
                )
            }
        )
        == 14
    )


def test_messages_show_what_is_invisible_and_cut_what_is_long():
    assert shown("a\u00a0\u200b\x1b[1m") == "'a\\xa0\\u200b\\x1b[1m'"
    assert len(shown("x" * 10_000)) < 300 and "10002 characters" in shown("x" * 10_000)
