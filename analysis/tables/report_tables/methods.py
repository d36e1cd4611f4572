"""Tabulates what each method costs: ability retained, edits until a loss, collapse, perplexity, editing success."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from afteredit.analysis.numbers.cell_text import each, spread, until_text
from afteredit.analysis.numbers.comparison import Comparison
from afteredit.analysis.numbers.drift import drift
from afteredit.analysis.read.run import Run
from afteredit.analysis.report_part import Part

PLACE = 10
NOTE = ("Mean over runs (smallest–largest). Edits until a loss: the first checkpoint at which it was seen, one number "
        "per run, so it came between that checkpoint and the one before; “> n” says that it had not come when the run "
        "ended after n edits. The area is the mean height of the curve over the edits made; compare it only between "
        "equal numbers of edits.")  # fmt: skip
NOTE_SINGLE = ("Mean over runs (smallest–largest), each of them the mean over its models. No model is built on "
               "another, so nothing here is counted over edits; a model whose update held NaN, which is not written, "
               "counts as the unedited one.")  # fmt: skip


def part(comparison: Comparison, checkpoints: Sequence[int]) -> Part:
    note = NOTE_SINGLE if comparison.single else NOTE
    return Part("Methods", note, table=methods_table(comparison))


def methods_table(comparison: Comparison) -> pd.DataFrame:
    """Returns one row per method, as text: the mean over runs, in brackets the smallest and the largest."""
    summaries, rows = comparison.summaries, []
    for label, runs in comparison.runs.items():
        retained = summaries[(summaries["method"] == label) & (summaries["ability"] == "retained")]
        ratios = [drift(run, run.rows[-1], "perplexity") for run in runs]
        rows.append({
            "method": label, "runs": str(len(runs)),
            **(_over_models(retained) if comparison.single else _over_edits(runs, retained)),
            "perplexity ÷ unedited": spread(ratios, digits=2),
            **_success(runs, "immediate" if comparison.single else "retained"),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _over_edits(runs: Sequence[Run], retained: pd.DataFrame) -> dict[str, str]:
    return {
        "edits": each([str(run.n_edits) for run in runs]),
        "ability retained at the end (%)": spread([100 * left for left in retained["left"]]),
        "area under retention (%)": spread([100 * area for area in retained["area"]]),
        "edits until 10 % lost": until_text(retained["edits_until_10_percent_lost"], retained["n_edits"]),
        "edits until 50 % lost": until_text(retained["edits_until_50_percent_lost"], retained["n_edits"]),
        "collapse at": until_text([run.collapsed_at for run in runs], retained["n_edits"]),
    }


def _over_models(retained: pd.DataFrame) -> dict[str, str]:
    """Returns means over models for setting=single, in which none is built on another."""
    collapsed = zip(retained["collapsed"], retained["models"], strict=True)
    return {
        "edits in each model": each([str(n) for n in retained["n_edits"]]),
        "models": each([str(n) for n in retained["models"]]),
        "ability retained, mean over models (%)": spread([100 * left for left in retained["left"]]),
        "of the worst model (%)": spread([100 * left for left in retained["left_min"]]),
        "models collapsed": each([f"{n} of {n_models}" for n, n_models in collapsed]),
    }


def _success(runs: Sequence[Run], when: str) -> dict[str, str]:
    key = f"editing/{when}/generated/efficacy"
    title = {"immediate": "edits successful, generated (%)", "retained": "edits retained, generated (%)"}[when]
    return {title: spread([100 * run.rows[-1].get(key, math.nan) for run in runs])}
