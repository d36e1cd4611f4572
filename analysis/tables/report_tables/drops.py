"""Tabulates how much of each ability is lost, and which losses are more than chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from afteredit.analysis.numbers.cell_text import percent, signed
from afteredit.analysis.numbers.comparison import Comparison
from afteredit.analysis.numbers.drops import LOST, drops
from afteredit.analysis.report_part import Part

PLACE = 40


def part(comparison: Comparison, checkpoints: Sequence[int]) -> Part:
    numbers = drops(comparison)
    n_tests = int(numbers["p"].notna().sum()) if len(numbers) else 0
    where = ("Edited: the mean over the models." if comparison.single
             else "At the last checkpoint that all runs of a method have.")  # fmt: skip
    note = (f"{where} Interval: paired bootstrap over examples. p: two-sided paired permutation test (before and after "
            f"exchanged, example by example), corrected by Holm for the {n_tests} tests of this table; * below 0.05. "
            "An ability whose unedited score is within the 95 % interval of chance is not measurable: nothing can be "
            "lost there, and it is not tested. Unparseable: share of answers in which none was found; ran out: "
            "share that did not end within the tokens that they may have; both unedited → edited.")  # fmt: skip
    table = abilities_table(comparison, numbers) if len(numbers) else None
    return Part("Which drops are real", note, table=table, numbers={"drops": numbers})


def abilities_table(comparison: Comparison, numbers: pd.DataFrame) -> pd.DataFrame:
    """Returns the table of `drops` as text."""
    rows = []
    for row in numbers.to_dict("records"):
        rows.append({
            "method": row["method"],
            "ability": comparison.ability_title(row["ability"]) + ("" if row["measurable"] else " (not measurable)"),
            "edits": str(row["n_edits"]), "unedited (%)": percent(row["before"]), "edited (%)": percent(row["after"]),
            "change (points), 95 % interval": _change_text(row), "p, Holm": _p_text(row.get("p_holm", math.nan)),
            **(_scores_text(row) if comparison.single else _losses_text(row)),
            "unparseable (%)": _share_text(row, "unparseable"), "ran out (%)": _share_text(row, "ran_out"),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _share_text(row: dict[str, Any], share: str) -> str:
    before_after = [row[f"{share}_before"], row[f"{share}_after"]]
    return "" if any(map(math.isnan, before_after)) else " → ".join(map(percent, before_after))


def _losses_text(row: dict[str, Any]) -> dict[str, str]:
    return {"area under retention (%)": percent(row["area"]),
            "edits until 10 % lost": row[LOST[0]], "edits until 50 % lost": row[LOST[1]]}  # fmt: skip


def _scores_text(row: dict[str, Any]) -> dict[str, str]:
    return {"models": str(row["models"]),
            "lowest–highest model (%)": f"{percent(row['lowest'])}–{percent(row['highest'])}"}  # fmt: skip


def _change_text(row: dict[str, Any]) -> str:
    value, low, high = (signed(f"{100 * row[key]:+.1f}") for key in ("value", "low", "high"))
    return value if math.isnan(row["low"]) else f"{value} [{low}, {high}]"


def _p_text(p: float) -> str:
    if math.isnan(p):
        return ""
    return ("< 0.001" if p < 0.001 else f"{p:.3f}") + (" *" if p < 0.05 else "")
