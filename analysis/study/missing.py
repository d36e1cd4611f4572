"""Says which published points no run of ours stands beside."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from afteredit.analysis.study.published import FIGURES, KEY


def not_run(ours: pd.DataFrame, published: pd.DataFrame, model: str, scoring: str) -> pd.DataFrame:
    """Returns the published points, of either model of theirs, that no run of `model` in this scoring stands beside."""
    have = ours[(ours["model"] == model) & ours["scoring"].isin(["", scoring])]
    points = published[published["x"] > 0].drop_duplicates([*KEY, "x"])
    marked = points.merge(have[[*KEY, "x"]].drop_duplicates(), on=[*KEY, "x"], how="left", indicator=True)
    return marked[marked["_merge"] == "left_only"].drop(columns=["_merge", "model", "value", "source"])


def not_run_in_words(ours: pd.DataFrame, published: pd.DataFrame, model: str, scorings: Sequence[str]) -> list[str]:
    """Returns "not run: memit at 1,000, 2,000"; a line for each scoring where they differ in it; none if all is run."""
    texts = {scoring: _in_words(not_run(ours, published, model, scoring)) for scoring in scorings}
    if len(set(texts.values())) == 1:
        return [f"not run: {text}" for text in set(texts.values()) if text]
    return [f"not run ({scoring}): {text}" for scoring, text in texts.items() if text]


def _in_words(points: pd.DataFrame) -> str:
    """Returns the curves and x, each curve once; the panels are named where only some of them lack a point."""
    texts = []
    for (figure, method, constraint, size), curve in points.groupby(["figure", "method", "constraint", "batch_size"]):
        name = method + (f" {constraint}" if constraint != "none" else "") + (f" × {size}" if size > 1 else "")
        lacking = curve.groupby("x")["quantity"].agg(frozenset)
        for panels, group in lacking.groupby(lacking, sort=False):
            of = "" if panels == set(FIGURES[figure].quantities) else f" ({', '.join(sorted(panels))})"
            texts.append(f"{name} at {', '.join(f'{x:,}' for x in group.index)}{of}")
    return "; ".join(texts)
