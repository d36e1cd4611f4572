"""The summary of a run, on made-up rows."""

from __future__ import annotations

import pytest

from afteredit.analysis.numbers.run_summary import summarise

CHANCE = {"nli": 0.5, "reasoning": 0.0}


def row(n_edits: int, nli: float | None, reasoning: float, retained: float | None) -> dict:
    scores = {"ability/nli": nli, "ability/reasoning": reasoning, "ability/retained": retained}
    return {"n_edits": n_edits} | {key: value for key, value in scores.items() if value is not None}


def test_summary_of_a_made_up_run():
    rows = [row(0, 0.9, 0.1, 1.0), row(10, 0.9, 0.0, 1.0), row(20, 0.74, 0.0, 0.5), row(40, 0.6, 0.0, 0.25)]
    rows[0]["measurable"] = ["nli"]
    summary = summarise(rows, CHANCE)
    assert summary == {
        "summary/nli/left": pytest.approx(0.25),  # (0.6 - 0.5) / (0.9 - 0.5)
        "summary/nli/area": pytest.approx((10 * 1 + 10 * 0.8 + 20 * 0.425) / 40),
        "summary/nli/edits_until_10_percent_lost": 20.0,
        "summary/nli/edits_until_50_percent_lost": 40.0,
        "summary/retained/left": 0.25,
        "summary/retained/area": pytest.approx((10 + 7.5 + 7.5) / 40),
        "summary/retained/edits_until_10_percent_lost": 20.0,
        "summary/retained/edits_until_50_percent_lost": 20.0,
    }


def test_what_is_never_lost_is_censored_where_the_run_ended():
    rows = [row(0, 0.9, 0.1, 1.0), row(10, 0.95, 0.1, 1.1)]
    rows[0]["measurable"] = ["nli"]
    summary = summarise(rows, CHANCE)
    assert summary["summary/nli/area"] > 1  # better than before
    lost = {key: value for key, value in summary.items() if "lost" in key}
    assert lost == {f"summary/{name}/edits_until_{percent}_percent_lost_censored_at": 10.0
                    for name in ("nli", "retained") for percent in (10, 50)}  # fmt: skip


def test_without_data_there_is_neither_a_number_of_edits_nor_a_censored_one():
    rows = [row(0, 0.9, 0.1, None), row(10, None, 0.1, None)]
    rows[0]["measurable"] = ["nli"]
    assert summarise(rows, CHANCE) == {"summary/nli/left": 1.0}


def test_a_checkpoint_without_an_ability_is_left_out_of_its_curve_only():
    rows = [row(0, 0.9, 0.1, 1.0), row(10, None, 0.1, 0.5), row(20, 0.5, 0.1, 0.0)]
    rows[0]["measurable"] = ["nli"]
    summary = summarise(rows, CHANCE)
    assert summary["summary/nli/area"] == pytest.approx(0.5)
    assert summary["summary/nli/edits_until_10_percent_lost"] == 20.0
    assert summary["summary/retained/edits_until_10_percent_lost"] == 10.0


def test_a_run_without_edits_or_without_anything_measurable_has_little_to_say():
    only = {**row(0, 0.5, 0.0, None), "measurable": []}
    assert summarise([only], CHANCE) == {}
    assert summarise([{**row(0, 0.9, 0.1, 1.0), "measurable": ["nli"]}], CHANCE) == {
        "summary/nli/left": 1.0,
        "summary/retained/left": 1.0,
    }
