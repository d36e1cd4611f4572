"""Says, panel by panel, whether the effect that Gu et al. published is seen in the runs at hand."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from afteredit.analysis.study.points import CURVE
from afteredit.analysis.study.published import KEY

LEAST = 0.05  # of a score: a smaller published change is called none; single runs of one setting differ by up to .33
COLUMNS = [*CURVE, "published_model", "x", "published_change", "change", "low", "high", "distance", "verdict"]


def verdicts(ours: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Returns one row per curve of ours, model of theirs and panel, at the last x that both have.

    A change is since the unedited model; in the figure on editing success it is against the same edits with nothing
    left out.  `distance` is our change less theirs.
    """
    rows = []
    theirs = {key: curve.set_index("x")["value"] for key, curve in published.groupby(["model", *KEY])}
    for key, curve in ours.groupby(CURVE, sort=False):
        model, scoring, figure, *rest = key
        for (their_model, *their_key), values in theirs.items():
            if their_key == [figure, *rest]:
                row = _verdict(figure, curve.set_index("x"), values, ours, theirs, key, their_model)
                if row:
                    rows.append(dict(zip(CURVE, key, strict=True)) | {"published_model": their_model} | row)
    return pd.DataFrame(rows, columns=COLUMNS)


def not_run(ours: pd.DataFrame, published: pd.DataFrame, model: str, scoring: str) -> pd.DataFrame:
    """Returns the published points, of either model of theirs, that no run of `model` in this scoring stands beside."""
    have = ours[(ours["model"] == model) & ours["scoring"].isin(["", scoring])]
    points = published[published["x"] > 0].drop_duplicates([*KEY, "x"])
    marked = points.merge(have[[*KEY, "x"]], on=[*KEY, "x"], how="left", indicator=True)
    return marked[marked["_merge"] == "left_only"].drop(columns=["_merge", "model", "value"])


def _verdict(figure: str, curve: pd.DataFrame, values: pd.Series, ours: pd.DataFrame, theirs: dict[Any, pd.Series],
             key: tuple[Any, ...], their_model: str) -> dict[str, Any] | None:  # fmt: skip
    common = sorted(set(curve.index) & set(values.index) - {0})
    if not common:
        return None
    x = common[-1]
    point = curve.loc[x]
    if figure == "change_statistics":
        return {"x": x, "published_change": values[x], "change": point["value"], "low": math.nan, "high": math.nan,
                "distance": point["value"] - values[x], "verdict": _grows(curve, values, common)}  # fmt: skip
    if figure == "rect_editing":
        whole = tuple("none" if name == "constraint" else part for name, part in zip(CURVE, key, strict=True))
        base = ours.set_index([*CURVE, "x"])["value"].get((*whole, x))
        their_base = theirs.get((their_model, *(part for name, part in zip(CURVE, whole, strict=True) if name in KEY)))
        if base is None or their_base is None or whole == key:
            return None
        change, published = point["value"] - base, values[x] - their_base[x]
        low, high = point["low"] - base, point["high"] - base
    else:
        change, published, low, high = point["change"], values[x] - values[0], point["low"], point["high"]
    return {"x": x, "published_change": published, "change": change, "low": low, "high": high,
            "distance": change - published,
            "verdict": _word(published, change, low, high) if point["measurable"] else "not measurable"}  # fmt: skip


def _word(published: float, change: float, low: float, high: float) -> str:
    """Returns the verdict in words; without an interval (NaN), from the change alone."""
    surely = abs(change) >= LEAST if math.isnan(low) else low > 0 or high < 0
    if abs(published) < LEAST:
        return "seen: no effect" if not surely or abs(change) < LEAST else "an effect here only"
    if not surely:
        return "not seen: no change beyond chance"
    return "seen: same direction" if change * published > 0 else "the opposite"


def _grows(curve: pd.DataFrame, values: pd.Series, common: list[int]) -> str:
    ours, theirs = (list(series.loc[common]) for series in (curve["value"], values))
    if len(common) < 2:
        return "one point only"
    return "seen: both grow" if ours == sorted(ours) and theirs == sorted(theirs) else "not seen: no steady growth"
