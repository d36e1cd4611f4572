"""Every case was judged by hand, in the word's own language; subjects and answers end by this one rule."""

from __future__ import annotations

import pytest

from afteredit.edit.subject_place import whole_words
from afteredit.evaluate.metrics.answer_match import gives_answer
from afteredit.model.scripts import began_before, goes_on

ENDS = [  # word, what follows it
    # Korean: particles and the copula, in the form that the last sound asks for
    ("서울", "은"), ("서울", "이다."), ("서울", "입니다"), ("서울", "에서는 비가"), ("서울", "로"), ("서울", "과"),
    ("도쿄", "의 인구"), ("도쿄", "는"), ("도쿄", "가"), ("도쿄", "로부터"), ("파리", "였다."),
    ("파리", "다."), ("대한민국", "으로"),
    ("서울", "까지의"), ("서울", "입니"), ("Paris", "는"), ("NASA", "에서"), ("프랑스", "와의"),
    ("1879", "년"), ("서울", ", 부산"),
    ("18", "은"),
    # Turkish endings after an apostrophe, possessives, sentences without a space
    ("Paris", "'te"), ("Peru", "'nun"), ("İstanbul", "’da"), ("Ankara", "'nın"), ("Roma", "'ya"), ("Paris", "'in"),
    ("Irak", "'ı"), ("1990", "'da"), ("Paris", "'s"), ("PERU", "'S home"), ("18", "'s"), ("Art", ".It was"),
    # numbers
    ("3 1/2", " cups"), ("3½", " cups"), ("3.5", " cups"), ("1,879", " men"), ("18th", " century"), ("18%", " of"),
    ("3", " cups"), ("3", " of 12"), ("1879", " 1/2/2020"), ("18", "-year-old"), ("1879", "-1955"),
    ("18", " men"), ("18", ": a"),
    ("3", " cents"), ("3", " miles"), ("3", " mice"), ("3", " millionaires"), ("3", " per"), ("3", " bins"),
    ("5", "+3"),
    ("4", "×4"), ("3", " 조각"), ("3", " persons"), ("3", " trees"), ("３．５", " km"),
    ("5 pour cent", " de"),
    ("3", "成为"), ("18", " post"), ("3", " process"), ("5", " M"), ("5", " k"),
    ("3", " and a cup"), ("3", " et demain"),
    ("3", " and half the men"), ("3", " e meios"), ("3", " y medianoche"),
    ("3 and a half", " cups"), ("3 et demi", "."), ("1.º", " lugar"), ("1", ".El primero"), ("1", ". Ο"), ("18", ".As"),
    ("F♯", " minor"), ("B♭", " major"), ("K⁺", " ions"), ("10⁻³", " m"), ("y′", " and"), ("Sales", "′ end"),
    ("A*", " search"), ("SETI@home", " is"), ("M*A*S*H", " ran"), ("Paris", "* it"),
    ("Paris", "** is"), ("C", " * 2"), ("Paris", "@ x"), ("Ke$ha", " sang"), ("F", " ♯"),
    ("3 millones", " de"), ("3 млн", ". Это"), ("三分之一", "的"), ("5", "分の休憩"), ("5", "분의 휴식"),
    # the Korean copula
    *(("서울", form) for form in ("이야.", "이죠", "이네요", "인데", "이었으며", "이지요", "이고,", "이라서",
    "이니까", "이면")),
    *(("파리", form) for form in ("야.", "죠", "네요", "인데", "였으며", "지요", "예요", "이었고")),
    ("תל־אביב", " היא"), ("צה״ל", "."), ("col·legi", " major"), ("תל", " אביב"), ('"תל', '" x'), ("🏴", "🏴 x"),
    # scripts that put no spaces between words
    ("東京", "は"), ("十", "个"), ("กรุงเทพ", "เป็น"), ("ပါရီ", "မြို့"), ("ꆈꌠ", "ꉙ"), ("パリ", "の"),
    ("Paris", "是"),
    ("Москва", " и"), ("دمشق", "،"), ("𝄞", " x"), ("Yahoo!", " is"),
    ("100", " °C"), ("100°C", " in"), ("100€", "."), ("6", " ′"),
    ("C+", " or"), ("C+", "."), ("A-", " or"), ("C+", "-"), ("C++", ", a"), ("A*", "+"),
]  # fmt: skip
GOES_ON = [
    ("서울", "시"), ("프랑스", "어"), ("한국", "인"), ("작", "가"), ("도쿄", "은"), ("서울", "는"),
    ("파", "리"), ("서", "울은"),
    ("대한", "민국"), ("바", "나나"), ("피", "자"), ("Paris", "시"), ("18", "만"),
    ("Qur", "'an"), ("Hawai", "'i"), ("Xi", "'an"), ("don", "'t"), ("O", "'Brien"), ("1990", "'s"), ("Sana", "'a"),
    ("3", " 1/2"), ("3", "\u00a01/2"), ("3", "-1/2"), ("3", " 1⁄2"), ("3", "½"), ("3", " ½"), ("3", ".5"),
    ("3", "/4"), ("3", " 1/"),
    ("100", "°C"), ("100", "˚C"), ("90", "∘ N"),
    ("1", "° maggio"), ("20", "℃"), ("68", "℉"), ("6", "′ 2"), ("6", "″"), ("100", "€"), ("18", "㎞"),
    ("18", "㎡ の"), ("18", "㌔"), ("18", "µm"), ("18", "Ω"), ("18", "₽"),
    ("18", "‱"), ("5", "$ each"),
    ("1", ",879"), ("18", "th"), ("18", "%"), ("18", " %"), ("18", " percent"), ("18", " Prozent"),
    ("18", "‰"), ("18", "er"),
    *(("3", f" {word}") for word in (
        "millones", "millón de", "milioni", "milhões", "миллиона", "млн", "مليون", "ملايين", "mil", "Mio.",
        "bn", "quadrillion",
        "dozen", "Milliarden", "mille", "mila", "milliards", "miljoen", "miljoner", "milionów", "tysięcy",
        "тысяч", "мільйонів",
        "milyon", "juta", "triệu", "millió", "miljoonaa", "εκατομμύρια", "מיליון", "लाख", "करोड़", "만 명",
        "万人", "ล้าน",
        "bilhões", "billones", "Tsd.", "Mrd.", "mld", "lakhs", "thousandths", "млрд")),
    *(("5", word) for word in (
        " pour cent", " pourcent", " percentage points", " por ciento", " per cento", " procent", " procenta",
        " prosenttia",
        " процентов", " відсотків", " Prozentpunkte", " puntos porcentuales", " في المئة", " بالمائة", " درصد",
        " אחוזים",
        " प्रतिशत", "퍼센트의", "パーセントの", "个百分点", "％", "\u00a0%")),
    *(("3", f" {word}") for word in (
        "and a half cups", "and one half", "and three quarters", "and a third", "and two-thirds", "and a quarter",
        "et demi", "et demie", "et quart", "et trois quarts", "et deux tiers", "und ein halb", "und ein Viertel",
        "y medio", "y media", "y cuarto", "y tres cuartos", "e mezzo", "e mezza", "e un quarto", "e meio", "e meia",
        "e três quartos", "en een half", "och en halv", "og en halv", "i pół", "a půl", "ja puoli", "és fél",
        "și jumătate", "buçuk", "setengah", "rưỡi", "с половиной", "и половина", "з половиною", "και μισό",
        "ونصف", "و نیم", "וחצי")),
    *(("5", f" {short}") for short in ("tys. ludzi", "tis.", "mlr.", "mia.", "tuh", "milj. euroa", "jt", "rb", "Md€",
                                       "M€", "k €", "M d'habitants", "md.", "Mds d'euros", "хил.", "мил.",
                                       "млрд", "χιλ.", "εκ.", "մլն", "მლნ")),
    ("18", " pct. af"), ("18", " pst."), ("18", " p. c."), ("18", " proc. z"), ("18", " फ़ीसदी"),
    ("18", " फीसदी"), ("3", "割です"), ("3", "成以上"), ("三", "割"), ("18", " posto"),
    ("18", " فیصد"), ("18", " শতাংশ"), ("18", " la sută"), ("18", " v. H."), ("3", " লাখ"), ("3", " ملین"),
    ("3", " milijuna"),
    ("3", "-and-a-half"), ("１", ".º"), ("1", ".º lugar"), ("1", ".ª"), ("1", ".er premio"), ("21", ".os"),
    ("1", "º"), ("1", ".ᵉʳ"),
    ("K", "⁺ ions"), ("Cl", "⁻"), ("H₃O", "⁺"), ("C", "₊"), ("10", "⁻³ m"), ("2", "⁺"), ("y", "′ and"), ("F", "″"),
    ("1", "´879"), ("16", "∶9"), ("3", "∕4"),
    ("F", "♯ minor"), ("B", "♭"), ("C♯", "m"), ("C", "*-algebra"), ("A", "* search"), ("SETI", "@home"),
    ("Ke", "$ha"), ("M", "*A*S*H"), ("M*A", "*S*H"),
    ("3", "-million-dollar"), ("３", "．５"), ("３", "，５００"), ("１８", "：３０"), ("三", "分之一"),
    ("5", "分の3"), ("五", "分の三"), ("5", "분의 3"),
    ("一", "点五"), ("3", "ล้าน"),
    ("차", "이나"), ("한국", "인"), ("라", "면"),
    ("תל", "־אביב"), ("צה", "״ל"), ("צה", '"ל'), ("ג", "'ורג"), ("col", "·legi"), ("Հայ", "֊ֆիլմ"),
    ("Ｊｅａｎ", "－Ｐａｕｌ"),
    ("Hawai", "‘i"), ("🏴", "\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"),
    ("C+", "+"), ("C+", "+ is"), ("C++", "+"), ("A-", "- or"), ("F♯", "♯ minor"), ("B♭", "♭"), ("A*", "*"),
    ("C++", "17"), ("C", "#"), ("C", "++"), ("U.S.", "A."), ("U", ".S."), ("Amazon", ".com"), ("Web", ".2"),
    ("Java\u00ad", "Script"),
    ("アメリ", "カ"), ("十", "八"), ("二", "〇"), ("가", "나다라마"), ("Straß", "e"), ("Моск", "ва"),
    ("دم", "شق"), ("می", "\u200cخواهم"),
]  # fmt: skip


@pytest.mark.parametrize(("word", "rest"), ENDS)
def test_a_word_ends_alike_for_subjects_and_answers(word, rest):
    assert not goes_on(word, rest)
    assert gives_answer(word + rest, word)
    assert whole_words(word, f"x {word}{rest}")[:1] == [2]


@pytest.mark.parametrize(("word", "rest"), GOES_ON)
def test_a_word_goes_on_alike_for_subjects_and_answers(word, rest):
    assert goes_on(word, rest)
    assert not gives_answer(word + rest, word)
    assert whole_words(word, f"x {word}{rest}") == []


WITHIN = [("ג'", "ורג"), ("תל־", "אביב"), ('צה"', "ל"), ("col·", "legi"), ("３．", "５"), ("一点", "五"),
          ("1", ",879"), ("Amazon.", "com"), ("Jean-", "Paul"), ("O'", "Brien"), ("-", "5"), ("남", "서울"),
          ("1 ", "879"), ("3 ", "1/2"), ("F-", "16"), ("SETI@", "home"), ("M*", "A*S*H"), ("F♯", "m"), ("Ke$", "ha"),
          ("二", "十"), ("\u2212", "5"), ("(-", "5"), ("yani %", "18"), ("٪", "18")]  # fmt: skip
BEGINS = [("l'", "Espagne"), ("dell'", "Italia"), ("1879-", "1955"), ("南", "アメリカ"), ("1990 ", "123 men"),
    ("(", "5"),
          ("5 - ", "3"), ("x", "巴黎"), ("the ", "Peru"), ("7-", "Eleven"), ("", "Peru"), ("100 % ", "18"),
    ("*", "A*"), ("C* ", "x"), ("@", "home"), ("$", "x"), ("3 and a ", "half")]  # fmt: skip


@pytest.mark.parametrize(("before", "after"), WITHIN)
def test_a_subject_is_not_taken_from_within_a_word_or_number(before, after):
    assert began_before(before, after)


@pytest.mark.parametrize(("before", "after"), BEGINS)
def test_a_subject_may_begin_there(before, after):
    assert not began_before(before, after)


def test_a_possessive_ends_a_name_with_a_number_but_a_bare_number_may_be_a_decade():
    assert gives_answer("Apollo 10's crew", "Apollo 10") and not gives_answer("1990's", "1990")


def test_flags_of_other_countries_are_other_answers_and_stray_tags_are_invisible():
    england, scotland = (
        f"🏴{''.join(chr(0xE0000 + ord(char)) for char in name)}\U000e007f" for name in ("gbeng", "gbsct")
    )
    assert gives_answer(f"{england} x", england) and not gives_answer(england, scotland)
    assert not gives_answer(england, "🏴") and not gives_answer("🏴", england)
    assert gives_answer("Par\U000e0061\U000e0062is", "Paris") and not goes_on("Paris", "\U000e0061 is")


def test_a_dotted_capital_is_an_i():
    assert gives_answer("istanbul'da", "İstanbul") and gives_answer("İSTANBUL", "istanbul")
    assert not gives_answer("ısı", "isi")


def test_case_is_read_from_the_text_itself():
    assert gives_answer("ROME.It was", "rome") and not gives_answer("AMAZON.com", "amazon")
    assert gives_answer("STRASSE 1", "Straße") and not gives_answer("groß", "gros")
