"""The shares left of abilities are those worked out by hand."""

from __future__ import annotations

import math

import pytest

from afteredit.evaluate.retention import measurable, of_one_scoring, retained_mean, share_left


@pytest.mark.parametrize(("score", "share"), [(0.75, 1.0), (0.5, 0.0), (0.625, 0.5), (0.25, -1.0), (1.0, 2.0)])
def test_the_share_left_is_one_at_the_unedited_score_and_zero_at_chance(score, share):
    assert share_left(score, base=0.75, chance=0.5) == share


def test_a_share_of_nothing_is_no_number():
    assert math.isnan(share_left(0.7, base=0.5, chance=0.5))


def test_the_retained_mean_is_over_the_named_abilities_alone():
    base = {"ability/nli": 0.75, "ability/ner": 0.4, "ability/open_qa": 0.0}
    row = {"ability/nli": 0.5, "ability/ner": 0.2, "ability/open_qa": 0.9}
    chance = {"nli": 0.5, "ner": 0.0, "open_qa": 0.0}
    assert retained_mean(row, base, ["nli", "ner"], chance) == pytest.approx((0 + 0.5) / 2)
    assert retained_mean(base, base, ["nli", "ner"], chance) == 1
    assert retained_mean(row, base, [], chance) is None


@pytest.mark.parametrize(
    ("measurable", "asked", "averaged"),
    [
        (["nli", "paper_nli", "paper_ner"], ["nli", "ner", "paper_nli", "paper_ner"], ["nli"]),
        (["paper_nli"], ["nli", "paper_nli"], []),  # nothing of what is clean can be measured
        (["paper_nli", "paper_ner"], ["paper_nli", "paper_ner", "paper_open_qa"], ["paper_nli", "paper_ner"]),
        (["nli"], ["nli", "ner"], ["nli"]),
    ],
)
def test_two_scorings_of_an_ability_are_not_averaged(measurable, asked, averaged):
    assert of_one_scoring(measurable, asked) == averaged


def test_measurable_is_what_stands_above_chance_with_its_whole_interval():
    def samples(name: str, n_right: int, n: int) -> list[dict]:
        return [
            {"kind": "ability", "name": name, "numerator": float(i < n_right), "denominator": 1.0} for i in range(n)
        ]

    given = samples("good", 50, 64) + samples("chance", 35, 64) + samples("floor", 0, 64) + samples("one", 1, 1)
    assert measurable(given, {"good": 0.5, "chance": 0.5, "floor": 0.0, "one": 0.5, "absent": 0.5}) == ["good"]
