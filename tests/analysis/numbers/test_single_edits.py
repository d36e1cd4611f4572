"""Means over the models of a run with setting=single, worked out by hand; nothing there is an area or a time."""

from __future__ import annotations

import math

import pytest

from afteredit.analysis.numbers.single_edits import each_edit_once, mean_row, summarise_models

EFFICACY = "editing/immediate/prob/efficacy"


def covering(n_edits: int, n: int, efficacy: float) -> dict:
    return {"n_edits": n_edits, "editing/immediate/n_edits": n, EFFICACY: efficacy}


def model(n_edits: int, nli: float, perplexity: float, retained: float, **more: float) -> dict:
    return {
        "n_edits": n_edits,
        "ability/nli": nli,
        "ability/retained": retained,
        "drift/perplexity": perplexity,
        **more,
    }


def test_of_every_metric_the_mean_is_over_the_models_that_have_it():
    mean = mean_row([model(5, 0.6, 30.0, 0.25), {**model(10, 0.8, 20.0, 0.75), "ability/ner": 0.5}], n_edits=1)
    assert mean == {"n_edits": 1, "ability/nli": pytest.approx(0.7), "ability/retained": 0.5, "ability/ner": 0.5,
                    "drift/perplexity": 25.0}  # fmt: skip


def test_immediate_success_is_the_mean_over_all_edits_and_not_over_rows():
    mean = mean_row([covering(4, 4, 1.0), covering(8, 4, 0.5), covering(10, 2, 0.0)], n_edits=1)
    assert mean[EFFICACY] == pytest.approx((4 + 2 + 0) / 10) and mean["editing/immediate/n_edits"] == 10


def test_where_rows_overlap_each_edit_counts_once():
    """Measured every 2 edits, then every 3: the row at 6 speaks of edits 4 to 6; that at 5 was measured later."""
    models = [covering(2, 2, 0.0), covering(3, 3, 1.0), covering(4, 1, 0.0), covering(5, 2, 0.0), covering(6, 3, 0.5)]
    assert [row["n_edits"] for row in each_edit_once(models)] == [6, 3]
    assert mean_row(models, 1)[EFFICACY] == pytest.approx(0.75)


def test_the_summary_holds_means_and_spread_and_nothing_over_edits():
    models = [model(5, 0.6, 30.0, 0.25, **{EFFICACY: 1.0, "editing/immediate/n_edits": 5}),
              model(10, 0.8, math.nan, 0.75, **{EFFICACY: 0.5, "editing/immediate/n_edits": 5})]  # fmt: skip
    summary = summarise_models(models, n_collapsed=1)
    assert math.isnan(summary.pop("summary/drift/perplexity_mean"))
    assert math.isnan(summary.pop("summary/drift/perplexity_min"))
    assert math.isnan(summary.pop("summary/drift/perplexity_max"))
    assert summary == {
        "summary/models": 2, "summary/collapsed_models": 1,
        "summary/ability/nli_mean": pytest.approx(0.7), "summary/ability/nli_min": 0.6, "summary/ability/nli_max": 0.8,
        "summary/ability/retained_mean": 0.5, "summary/ability/retained_min": 0.25,
        "summary/ability/retained_max": 0.75, f"summary/{EFFICACY}_mean": 0.75,
    }  # fmt: skip
