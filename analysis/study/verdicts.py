"""Says, panel by panel, whether the effect that Gu et al. published is seen in the runs at hand."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from afteredit.analysis.study.points import CURVE, in_first_order
from afteredit.analysis.study.published import KEY, MODELS, published_as

LEAST = 0.05  # of a score: a smaller published change is called none; single runs of one setting differ by up to .33
MARGIN = 0.10  # "seen: no effect" needs our whole interval this near to 0: twice LEAST, so that 64 rows can settle it
COLUMNS = [*CURVE, "order", "published_model", "x", "published_change", "change", "low", "high", "distance",
           "unparseable_before", "unparseable", "orders", "orders_low", "orders_high", "verdict"]  # fmt: skip


def verdicts(ours: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Returns one row per curve of ours, model of theirs and panel, at the last x that both have.

    A change is that of changes.py, on both sides; `distance` is our change less theirs.  Compared is the curve of the
    first order of facts; the change of all `orders` that reach that x lies between `orders_low` and `orders_high`.
    """
    rows = []
    theirs = {key: curve.set_index("x")["value"] for key, curve in published.groupby(["model", *KEY])}
    over_orders = ours.groupby([*CURVE, "x"])["change"].agg(
        orders="count", orders_low="min", orders_high="max")  # fmt: skip
    for key, curve in ours[in_first_order(ours)].groupby(CURVE, sort=False):
        curve = curve.set_index("x")
        known = dict(zip(CURVE, key, strict=True))
        beside = [published_as(known["constraint"]) if name == "constraint" else known[name] for name in KEY]
        for their_model in (model for model in MODELS if (model, *beside) in theirs):
            values = _published_changes(theirs, their_model, beside)
            common = sorted(set(curve.index) & set(values.index) - {0})
            if common and not math.isnan(curve.loc[common[-1], "change"]):
                row = _verdict(known["figure"], curve, values, common)
                orders = dict(over_orders.loc[(*key, row["x"])])
                rows.append(known | {"published_model": their_model} | row | orders)
    return pd.DataFrame(rows, columns=COLUMNS).astype({"orders": int})


def _published_changes(theirs: dict[Any, pd.Series], model: str, beside: list[Any]) -> pd.Series:
    """Returns the published changes by x: as ours, since the unedited model or against nothing left out."""
    values = theirs[model, *beside]
    figure, method, _, *rest = beside
    if figure == "change_statistics":
        return values
    return values - (theirs[model, figure, method, "none", *rest] if figure == "rect_editing" else values[0])


def _verdict(figure: str, curve: pd.DataFrame, values: pd.Series, common: list[int]) -> dict[str, Any]:
    x = common[-1]
    point, published = curve.loc[x], float(values[x])
    if figure == "change_statistics":
        word = _growth(curve["value"].loc[common], values.loc[common])
    else:
        word = verdict(published, *point[["change", "low", "high"]]) if point["measurable"] else "not measurable"
    return {"order": point["order"], "x": x, "published_change": published, "distance": point["change"] - published,
            **point[["change", "low", "high", "unparseable"]],
            "unparseable_before": curve["unparseable"].get(0, math.nan), "verdict": word}  # fmt: skip


def verdict(published: float, change: float, low: float, high: float) -> str:
    """Returns the verdict in words on our change, with its interval; without one (NaN), from the change alone."""
    published, change, low, high = (round(number, 9) for number in (published, change, low, high))  # .57 − .52 is .05
    no_interval = math.isnan(low)
    surely = abs(change) >= LEAST if no_interval else low > 0 or high < 0
    if abs(published) < LEAST:
        if surely and abs(change) >= LEAST:
            return "an effect here only"
        return "seen: no effect" if no_interval or -MARGIN <= low <= high <= MARGIN else "cannot be told"
    if not surely:
        return "cannot be told" if low <= published <= high else "not seen: no change beyond chance"
    return "seen: same direction" if change * published > 0 else "the opposite"


def _growth(ours: pd.Series, theirs: pd.Series) -> str:
    if len(ours) < 2:
        return "one point only"
    both = ours.is_monotonic_increasing and theirs.is_monotonic_increasing
    return "seen: both grow" if both else "not seen: no steady growth"
