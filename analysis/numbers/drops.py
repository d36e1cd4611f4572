"""How much of each ability is lost, with its interval and a paired test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from afteredit.analysis.numbers import statistics
from afteredit.analysis.numbers.cell_text import until_text
from afteredit.analysis.numbers.comparison import Comparison
from afteredit.analysis.numbers.paired_examples import paired
from afteredit.analysis.numbers.run_values import common_checkpoints, mean_over, number
from afteredit.analysis.read.run import Run

LOST = ("edits_until_10_percent_lost", "edits_until_50_percent_lost")

ANSWER_SHARES = ("unparseable", "ran_out")  # of the answers to a generating task


def drops(comparison: Comparison) -> pd.DataFrame:
    """Returns one row per method and ability, at the last checkpoint that all the method's runs have.

    `p` is the paired test's; `p_holm` corrects it for every test in this table.  Both are NaN where the ability is not
    measurable or no examples were stored.  With setting=single `after` is the mean over models, and so is an example's
    score (numerator and denominator each, so interval and test are those of the pooled score).
    """
    rows = []
    for label, runs in comparison.runs.items():
        n_edits = common_checkpoints(runs)[-1]
        for name in comparison.first.abilities if n_edits else ():
            row = _drop(comparison, label, name, n_edits)
            if row:
                rows.append(row)
    table = pd.DataFrame(rows)
    if len(table):
        tested = table["p"].notna()
        table.loc[tested, "p_holm"] = statistics.holm(table.loc[tested, "p"].tolist())
    return table


def _drop(comparison: Comparison, label: str, name: str, n_edits: int) -> dict[str, Any] | None:
    """Returns None where the runs have no score of the ability there."""
    key, runs, curves = f"ability/{name}", comparison.runs[label], comparison.curves
    point = curves[(curves["method"] == label) & (curves["n_edits"] == n_edits) & (curves["curve"] == key)]
    if point.empty:
        return None
    measurable = name in comparison.measurable
    pairs = paired(runs, name, n_edits) if measurable else None
    return {
        "method": label, "ability": name, "n_edits": n_edits, "n_runs": len(runs),
        "n_examples": pairs[0].shape[-1] if pairs else None, "measurable": measurable,
        "before": mean_over(runs, 0, number(key)), "after": mean_over(runs, n_edits, number(key)),
        **point.iloc[0][["value", "low", "high"]].to_dict(),
        "p": statistics.p_value(*pairs) if pairs else math.nan,
        **(_scores(runs, key) if comparison.single else _losses(comparison, label, name)),
        **{f"{share}_{when}": mean_over(runs, n, number(f"{key}/{share}"))
           for share in ANSWER_SHARES for when, n in (("before", 0), ("after", n_edits))},
    }  # fmt: skip


def _losses(comparison: Comparison, label: str, name: str) -> dict[str, Any]:
    """Returns the mean area, and for each loss the edits until it, one number per run (NaN: not reached)."""
    rows = comparison.summaries
    rows = rows[(rows["method"] == label) & (rows["ability"] == name)]
    return {"area": rows["area"].mean() if len(rows) else math.nan,
            **{lost: until_text(rows[lost], rows["n_edits"]) for lost in LOST}}  # fmt: skip


def _scores(runs: Sequence[Run], key: str) -> dict[str, Any]:
    scores = [row[key] for run in runs for row in run.models if key in row]
    return {"models": len(scores), "lowest": min(scores), "highest": max(scores)}
