"""Tabulates whether perplexity rose before ability was lost."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from afteredit.analysis.numbers.cell_text import until_text
from afteredit.analysis.numbers.comparison import Comparison
from afteredit.analysis.numbers.drift import WARNING, drift
from afteredit.analysis.report_part import Part

PLACE = 90


def part(comparison: Comparison, checkpoints: Sequence[int]) -> Part | None:
    """Returns None with setting=single, where nothing comes before anything."""
    if comparison.single:
        return None
    table = warnings_table(comparison)
    return Part("Does perplexity warn in time?", table=table, numbers={"warnings": table})


def warnings_table(comparison: Comparison) -> pd.DataFrame:
    """Returns for each run the first checkpoint with perplexity past the warning, and the first with 10 % lost."""
    summaries, rows = comparison.summaries, []
    for label, runs in comparison.runs.items():
        for run in runs:
            retained = summaries[(summaries["run"] == run.name) & (summaries["ability"] == "retained")]
            lost = retained["edits_until_10_percent_lost"].iloc[0]
            warned = next((row["n_edits"] for row in run.rows if not drift(run, row, "perplexity") <= WARNING), None)
            rows.append({
                "method": label, "seed": str(run.seed),
                f"perplexity +{100 * (WARNING - 1):.0f} % at": until_text([warned], [run.n_edits]),
                "10 % of ability lost at": until_text([lost], [run.n_edits]),
                "did it warn?": verdict(warned, None if math.isnan(lost) else lost),
            })  # fmt: skip
    return pd.DataFrame(rows)


def verdict(warned: float | None, lost: float | None) -> str:
    if lost is None:
        return "nothing to warn of" if warned is None else "false alarm so far"
    if warned is None:
        return "no warning"
    return "in time" if warned < lost else "at the same checkpoint" if warned == lost else "too late"
