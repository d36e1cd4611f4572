"""Puts numbers into the text of a table's cell: of several runs, as per cent, signed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from afteredit.analysis.numbers import statistics

MOST_LISTED = 4  # runs whose numbers are listed one by one; of more, the median is given


def until_text(reached: Sequence[float | None] | pd.Series, last: Sequence[float] | pd.Series) -> str:
    """Returns the edits until something happened in each run, `> n` where it had not by the last edit (right-censored).

    Many runs give the Kaplan–Meier median.
    """
    known = [None if at is None or math.isnan(at) else at for at in reached]
    ends = list(last)
    if len(known) <= MOST_LISTED:
        return each([f"> {end:.0f}" if at is None else f"{at:.0f}" for at, end in zip(known, ends, strict=True)])
    median = statistics.median_until(known, ends)
    never = sum(at is None for at in known)
    text = f"median > {max(ends):.0f}" if median is None else f"median {median:.0f}"
    return f"{text} (not reached in {never} of {len(known)})" if never else text


def each(texts: Sequence[str]) -> str:
    """Returns the runs' texts side by side, one where all are equal."""
    return texts[0] if len(set(texts)) == 1 else " · ".join(texts) if len(texts) <= MOST_LISTED else f"{texts[0]} …"


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Returns the mean of those that are known, and in brackets the smallest and the largest."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return ""
    mean = f"{sum(known) / len(known):.{digits}f}"
    if len(known) == 1 or max(known) == min(known):
        return mean
    return f"{mean} ({min(known):.{digits}f}–{max(known):.{digits}f})"


def percent(value: float) -> str:
    return "" if math.isnan(value) else f"{100 * value:.1f}"


def signed(text: str) -> str:
    """Returns a number's text with a true minus sign, as on the axes."""
    return text.replace("-", "−")
