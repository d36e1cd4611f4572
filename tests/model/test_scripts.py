"""Which scripts put no spaces between words, held against Unicode's classes of line breaking."""

from __future__ import annotations

import sys

import pytest
import regex

from afteredit.model.scripts import UNSPACED, ends_without_spaces

# UAX 14: SA needs a dictionary, ID breaks anywhere, AK and AS between syllables, CJ and NS are small kana and the like
BREAKS_WITHIN = regex.compile(r"[[\p{lb=SA}\p{lb=ID}\p{lb=AK}\p{lb=AS}\p{lb=CJ}\p{lb=NS}]&&\p{L}]", regex.V1)
SPACED = regex.compile(r"[\p{sc=Hangul}\p{sc=Latin}]")  # half-width Hangul and full-width Latin letters


def test_every_letter_at_which_unicode_breaks_a_line_is_of_a_script_without_spaces():
    letters = [letter for letter in map(chr, range(sys.maxunicode + 1))
               if BREAKS_WITHIN.match(letter) and not SPACED.match(letter)]  # fmt: skip
    assert len(letters) > 100_000
    assert [hex(ord(letter)) for letter in letters if not regex.match(f"[{UNSPACED}]", letter)] == []


ENDS = ["法国的首都是", "年份是二〇二〇", "〇", "フランスの首都は", "メーカー", "佐々", "เมืองหลวงคือ", "ປາຣີ",
    "ពារីស", "ပဲရစ်",
        "པ་རི", "ꦗꦮ", "ᬩᬮᬶ", "ꨌꩌ", "ꆈꌠ", "ꪼꪕ", "ᥖᥭᥰ", "ᦺᦑ", "ᨲᩫ", "法国 (1)", "ปี ๒๕๖๓", "ㄅㄆ"]  # fmt: skip


@pytest.mark.parametrize("text", ENDS)
def test_no_space_follows_a_script_without_spaces(text):
    assert ends_without_spaces(text)


@pytest.mark.parametrize(
    "text", ["", "18", "Paris", "法国 Paris", "서울은", "Москва", "दिल्ली", "القاهرة", "Ⅷ", "Ａ", "አዲስ"]
)
def test_a_space_follows_other_scripts(text):
    assert not ends_without_spaces(text)
