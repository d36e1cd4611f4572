"""The subject is found where it stands as a whole word; several places, or none, are refused."""

import pytest

from afteredit.edit.subject_place import SubjectPlace, filled, whole_words, with_braces
from afteredit.store.errors import BadInput

FOUND = {  # subject, prompt -> prompt with {}
    ("Java", "JavaScript and Java are"): "JavaScript and {} are",
    ("Peru", "Peruvians of Peru, speak"): "Peruvians of {}, speak",
    ("Ada Quill", "Ada Quill's home is"): "{}'s home is",
    ("18", "In 1879 or 18, 18.5 or 1,18 or 180 were"): "In 1879 or {}, 18.5 or 1,18 or 180 were",
    ("C++", "C++17 is newer than C++"): "C++17 is newer than {}",
    ("法国", "法国的首都是"): "{}的首都是",
    ("パリ", "花の都パリは"): "花の都{}は",
    ("ประเทศไทย", "เมืองหลวงของประเทศไทยคือ"): "เมืองหลวงของ{}คือ",
    ("프랑스", "프랑스의 수도는"): "{}의 수도는",
    ("Perú", "La capital del Perú es"): "La capital del {} es",
    ("भारत", "भारतीय लोग भारत में"): "भारतीय लोग {} में",
    ("Moscow", "Moscow"): "{}",
    ("Jean", "Jean-Paul and Jean are"): "Jean-Paul and {} are",
    ("Spain", "Non-Spain, Spain - and Spain-based"): "Non-Spain, {} - and Spain-based",
    ("Espagne", "La capitale de l'Espagne est"): "La capitale de l'{} est",
    ("Peru", "Peru'nun başkenti"): "{}'nun başkenti",
    ("👩", "👩\u200d💻, 👩🏽 and 👩 are"): "👩\u200d💻, 👩🏽 and {} are",
    ("💻", "👩\u200d💻 and 💻"): "👩\u200d💻 and {}",
    ("กา", "กาํ กา"): "กาํ {}",
    ("typeof {}", "The result of typeof {} is"): "The result of {} is",
    ("typeof {}", "The result of {} is"): "The result of {} is",
    ("{}", "The type of {} is"): "The type of {} is",
    ("C", "C++ and C# differ from C in"): "C++ and C# differ from {} in",
    ("AT", "AT&T is not AT, says"): "AT&T is not {}, says",
    ("T", "AT&T makes the T"): "AT&T makes the {}",
    ("O", "O'Brien, O\u2019Neill and O are"): "O'Brien, O\u2019Neill and {} are",
    ("PERU", "PERU'S home"): "{}'S home",
    ("Amazon", "Amazon.com is run by Amazon."): "Amazon.com is run by {}.",
    ("Art", "He was at Art.It was"): "He was at {}.It was",  # a space left out
    ("18", "At 18:30, 12:18, 18/6 and 18: we"): "At 18:30, 12:18, 18/6 and {}: we",
    ("5", "-5, \u22125, 1/5 and 5 are"): "-5, \u22125, 1/5 and {} are",
    (
        "\U0001f1f7\U0001f1e9",
        "\U0001f1eb\U0001f1f7\U0001f1e9\U0001f1ea \U0001f1f7\U0001f1e9",
    ): "\U0001f1eb\U0001f1f7\U0001f1e9\U0001f1ea {}",
    ("\U0001f1e9\U0001f1ea", "\U0001f1eb\U0001f1f7\U0001f1e9\U0001f1ea"): "\U0001f1eb\U0001f1f7{}",
    ("Peru", "The capital of {} is"): "The capital of {} is",
    ("Apollo 10", "When was Apollo 10's launch?"): "When was {}'s launch?",
    ("Flight 370", "Flight 3700 was not Flight 370\u2019s"): "Flight 3700 was not {}\u2019s",
}


@pytest.mark.parametrize(("subject", "prompt"), FOUND)
def test_the_subject_is_found_as_a_whole_word(subject, prompt):
    template = with_braces(subject, prompt)
    assert template == FOUND[subject, prompt]
    assert template.count("{}") == 1
    assert template.replace("{}", subject) == (prompt if subject in prompt else prompt.replace("{}", subject))


REFUSED = {
    ("Java", "Java and Java are"): "2 times",
    ("Peru", "The Peruvian capital is"): "part of a longer word",
    ("Jean", "Jean-Paul is"): "part of a longer word",
    ("Peru", "The capital of Chile is"): "does not stand in the prompt",
    ("Danielle\u00a0Darrieux", "Danielle Darrieux speaks"): r"'Danielle\xa0Darrieux'",
    ("seoul", "Seoul is in"): "same spelling",
    ("", "Seoul is in"): "does not stand",
    ("C", "C++ was made by"): "part of a longer word",
    ("AT", "AT&T was made by"): "part of a longer word",
    ("O", "O'Brien was"): "part of a longer word",
    ("Amazon", "Amazon.com was"): "part of a longer word",
    ("5", "-5 is"): "part of a longer word",
    ("aa", "a_aa aaa"): "longer word",
    ("大阪", "大阪と大阪は"): "2 times",
    ("1990", "Music of the 1990's is"): "longer word",
    ("Apollo 10", "Apollo 10'strong is"): "longer word",
}


@pytest.mark.parametrize(("subject", "prompt"), REFUSED)
def test_no_place_and_several_are_refused_with_the_remedy(subject, prompt):
    with pytest.raises(BadInput) as problem:
        with_braces(subject, prompt)
    assert REFUSED[subject, prompt] in str(problem.value) and "{} in its place" in str(problem.value)


def test_other_prompts_get_the_subject_in_place_of_braces():
    assert filled("Peru", "{} is ruled from") == "Peru is ruled from"
    assert filled("Peru", "Peru is ruled from") == "Peru is ruled from"
    assert filled("typeof {}", "In code, {} gives") == "In code, typeof {} gives"
    assert filled("typeof {}", "In code, typeof {} gives") == "In code, typeof {} gives"
    assert filled("map{}", "x {} vs mymap{}") == "x map{} vs mymap{}"


def test_the_place_that_counts_can_be_said():
    prompt = "A pan, as in pancake, is for pans; what is a pan?"
    assert with_braces("pan", prompt, SubjectPlace.first) == "A {}, as in pancake, is for pans; what is a pan?"
    assert with_braces("pan", prompt, SubjectPlace.last) == "A pan, as in pancake, is for pans; what is a {}?"
    for which in (SubjectPlace.first, SubjectPlace.last):
        assert with_braces("Peru", "Peru is", which) == "{} is"
        assert with_braces("Peru", "Peru and {} are", which) == "Peru and {} are"
        with pytest.raises(BadInput, match="does not stand"):
            with_braces("Peru", "Chile is", which)
    with pytest.raises(BadInput, match=r"2 times .*\+\+edits.subject_place=first or last"):
        with_braces("pan", prompt)


def test_places_that_overlap_are_two():
    assert whole_words("a a", "a a a") == [0, 2]
