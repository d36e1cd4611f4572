"""Every pair was judged by hand: does the text give the answer, as a whole word or a whole number?"""

from __future__ import annotations

import pytest

from afteredit.evaluate.metrics.answer_match import gives_answer

GIVEN = [
    ("Java", "Java"), ("Java", " Java"), ("Java", "\n Java.\n"), ("Java", "java, or"), ("JAVA", " java;"),
    (" Java ", "Java!"), ("Java", "Java (language)"), ("Java", 'Java"'), ("Java", "Java/Kotlin"),
    ("Java", "Java — an"), ("Java", "Java's syntax"), ("Java", "Java’s syntax"), ("James", "James' house"),
    ("Java", "Java...\n"), ("Java", "Java - an island"), ("Java", "Java\u200b is"), ("C++", "C++, which"),
    ("U.S.", "U.S. Army"), ("U.S.", "U.S.’s"), ("New York", "New York, NY"), ("AT&T", "AT&T's"),
    ("Jean-Paul", "Jean-Paul Sartre"), ("O'Brien", "O'Brien was"), ("Amazon.com", "Amazon.com."),
    ("São Paulo", "Sa\u0303o Paulo is"), ("Cafe\u0301", "café."), ("Straße", "STRASSE 1"),
    ("Kraków", "Kraków’s"), ("می\u200cخواهم", "میخواهم."), ("JavaScript", "Java\u00adScript"),
    ("Москва", "Москва, столица"), ("Ελλάδα", "ΕΛΛΆΔΑ."), ("18", "18"), ("18", "18."), ("18", "18. In"),
    ("18", "18, 19"), ("18", "18) and"), ("18", "18 people"), ("1879", "1879-1955"),
    ("1879", "1879–1955"), ("18", "18-year-old"), ("1,879", "1,879 men"), ("18.5", "18.5 km"),
    ("-18", "-18 degrees"), ("18th", "18th century"), ("1990s", "1990s."), ("1945", "1945 1939"),
    ("F-16", "F-16's"), ("GPT-3", "GPT-3."), ("18 000", "18 000 men"), ("1879", "1879年"), ("1879", "1879ปี"),
    ("1879", "1879년"), ("١٨", "١٨."), ("巴黎", "巴黎"), ("巴黎", "巴黎是法国的首都"), ("巴黎", "巴黎。"),
    ("パリ", "パリです"), ("パリ", "パリ。"), ("東京", "東京タワー"), ("กรุงเทพ", "กรุงเทพเป็นเมือง"),
    ("ປາຣີ", "ປາຣີ ແມ່ນ"), ("Paris", "Paris是"), ("巴黎", "巴黎Paris"), ("北京", "北京三里屯"), ("十", "十个"),
    ("파리", "파리 입니다"), ("दिल्ली", "दिल्ली है"),
    ("レオナルド・ダ・ヴィンチ", "レオナルド・ダ・ヴィンチが"),
    ("1879", "1879 123 people"), ("1879", "1879 100"), ("1879", "1879 12"), ("1 million", "1 million men"),
    ("18", "18 millionaires"), ("18", "18 miles"), ("👍", "👍 yes"), ("👍🏽", "👍🏽."), ("👨\u200d👩", "👨\u200d👩 is"),
    ("❤", "❤\ufe0f"), ("👍", "👍👎"), ("18", "18-летний"), ("18", "18: En"), ("18", "18:Paris"), ("18-й", "18-й век"),
]  # fmt: skip
NOT_GIVEN = [
    ("Java", " JavaScript"), ("Micro", "Microsoft"), ("Java", "Javanese"), ("Java", "Java2"),
    ("Java", "Java_EE"), ("Java", "in Java"), ("Java", ""), ("Java", "Jav"), ("C", "C++"), ("C", "C#"),
    ("C+", " C++ is"),
    ("Jean", "Jean-Paul"), ("Jean", "Jean\u2010Paul"), ("O", "O'Brien"), ("O", "O’Brien"), ("don", "don't"),
    ("Amazon", "Amazon.com"), ("U.S.", "U.S.A."), ("AT", "AT&T"), ("Covid", "Covid-19"), ("Jos", "José"),
    ("Jose", "José"), ("Jose", "Jose\u0301"), ("Cafe", "Cafe\u0301s"), ("Gros", "Groß"),
    ("Java", "Java\u00adScript"), ("می", "می\u200cخواهم"), ("Моск", "Москва"), ("राम", "रामायण"),
    ("राम", "रामा"), ("파", "파리"), ("Java", "Java\u0301"), ("18", "1879"), ("1", "1,879"), ("1", "1.879"),
    ("18", "18.5"), ("18", "-18"), ("18", "18th"), ("18", "18km"), ("18", "180"), ("1990", "1990s"),
    ("1990", "1990's"), ("18", "18:30"), ("1", "1/2"), ("18", "18²"), ("18", "18½"), ("18", "18 000 men"),
    ("18", "18\u202f000"), ("18", "18\u00a0000"), ("1", "1'000"), ("1", "1’000"), ("18", "18 00"),
    ("10", "10^{6}"),
    ("1", "1 879 453"), ("18", "18e5"), ("18", "１８"), ("GPT-3", "GPT-3.5"), ("F-1", "F-16"), ("18", "18万"),
    ("18", "18만"), ("1", "1\u0332"), ("١", "١٨"), ("١٨", "١٨٫٥"), ("十", "十八"), ("二", "二十"),
    ("百", "百万"), ("巴黎", "在巴黎"), ("ジャワ", "ジャワスクリプト"),
    ("レオナルド", "レオナルド・ダ・ヴィンチ"), ("ラ", "ラーメン"), ("กก", "กกี"), ("巴黎", "巴"),
    ("Java", "Java\ufffd"), ("1", "1 million"), ("5", "5 Million people"), ("18", "18\u00a0millions"),
    ("2", "2 Milliarden"), ("3", "3 thousand"), ("1879", "1879 million"), ("123", "123 456"), ("👍", "👍\U0001f3fd"),
    ("18", "18-й век"), ("5", "5-ти"), ("1990", "1990-х годов"), ("18", "18-ый"), ("18", "18:e"), ("2", "2:a"),
    ("👨", "👨\u200d👩\u200d👧"), ("❤", "❤\ufe0f\u200d🔥"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "text"), GIVEN)
def test_a_whole_word_or_number_gives_the_answer(answer, text):
    assert gives_answer(text, answer)


@pytest.mark.parametrize(("answer", "text"), NOT_GIVEN)
def test_a_part_of_a_longer_word_or_number_does_not(answer, text):
    assert not gives_answer(text, answer)


@pytest.mark.parametrize("answer", ["", " ", "\u200b"])
def test_nothing_is_no_answer(answer):
    assert not gives_answer("anything", answer)
