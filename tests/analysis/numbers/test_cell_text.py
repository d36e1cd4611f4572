"""Numbers of several runs in one cell."""

from __future__ import annotations

import math

from afteredit.analysis.numbers.cell_text import until_text


def test_never_reached_is_censored_where_the_run_ended():
    assert until_text([10, None], [30, 25]) == "10 · > 25"
    assert until_text([math.nan, math.nan], [30, 30]) == "> 30"
    assert until_text([10, 20, 30, None, None], [60] * 5) == "median 30 (not reached in 2 of 5)"
    assert until_text([10, None, None, None, None], [60] * 5) == "median > 60 (not reached in 4 of 5)"
