"""The collapse rule: an update that could not be written, or a perplexity past its limit."""

from __future__ import annotations

import math

from afteredit.record.collapse import collapses, is_past_limit

WRITTEN, BROKEN = {}, {"collapsed": 1.0}


def edits(*diagnostics: dict) -> list[dict]:
    return [{"n_edits": n, "diagnostics": said} for n, said in enumerate(diagnostics, start=1)]


def rows(*perplexities: float) -> list[dict]:
    return [{"n_edits": n, "drift/perplexity": value} for n, value in enumerate(perplexities)]


def test_broken_updates_and_perplexities_past_the_limit_are_collapses_in_order():
    assert collapses(edits(WRITTEN, WRITTEN, BROKEN), rows(20.0, 2010.25, 199.0), 10.0) == {
        1: "perplexity 2,010 is above 10 times the unedited model's 20",
        3: "an update held NaN or infinity, or could not be made",
    }


def test_a_perplexity_that_is_no_number_is_past_every_limit():
    assert collapses([], rows(20.0, math.nan, math.inf, 200.0), 10.0) == {
        1: "perplexity is NaN",
        2: "perplexity inf is above 10 times the unedited model's 20",
    }


def test_without_the_row_of_the_unedited_model_no_perplexity_is_judged():
    assert list(collapses(edits(BROKEN), rows(20.0, 500.0)[1:], 10.0)) == [1]


def test_a_row_without_a_perplexity_is_not_past_the_limit():
    assert not is_past_limit({}, {"drift/perplexity": 1.0}, 10.0)
    assert not is_past_limit({"drift/perplexity": 1.0}, {}, 10.0)
