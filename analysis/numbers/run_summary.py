"""What a run comes down to: the table at its end, and the numbers a sweep compares.  Reads result files only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from rich.table import Table

from afteredit.evaluate.intervals import change_interval

WAYS = ("prob", "forced", "generated")
Rows = Sequence[Mapping[str, Any]]


class Results(Protocol):
    @property
    def rows(self) -> list[dict[str, Any]]: ...

    def samples_path(self, n_edits: int) -> Path: ...


def final_table(results: Results, chance: Mapping[str, float]) -> Table:
    """Every ability at 0 and at the last edit, its change with the 95 % interval (paired over examples), then what
    is retained in all and perplexity."""
    rows = results.rows
    first, last = rows[0], rows[-1]
    table = Table(title=f"after {last['n_edits']} edits")
    for column in ("", "chance", "at 0", f"at {last['n_edits']}", "change", "95 % interval"):
        table.add_column(column, justify="left" if not column else "right")
    before, after = (pd.read_parquet(results.samples_path(row["n_edits"])) for row in (first, last))
    for name, level in chance.items():
        key = f"ability/{name}"
        if key not in first or key not in last:
            continue
        low, high = change_interval(*paired_examples(before, after, name))
        mark = "" if name in first.get("measurable", []) else " (not measurable)"
        table.add_row(name + mark, f"{level:.2f}", f"{first[key]:.3f}", f"{last[key]:.3f}",
                      f"{last[key] - first[key]:+.3f}", f"[{low:+.3f}, {high:+.3f}]")  # fmt: skip
    table.add_section()
    for key, label in (("ability/retained", "retained, all measurable"), ("drift/perplexity", "perplexity")):
        if key in first and key in last:
            table.add_row(label, "", f"{first[key]:.3f}", f"{last[key]:.3f}", f"{last[key] - first[key]:+.3f}", "")
    return table


def editing_table(results: Results) -> Table:
    """Editing success at the last checkpoint (in brackets: the unedited model's), by the three ways of looking."""
    first, last = results.rows[0], results.rows[-1]
    return success_table(f"editing success after {last['n_edits']} edits (unedited model)", first, last)


def success_table(title: str, first: Mapping[str, Any], last: Mapping[str, Any]) -> Table:
    """The row `last`, in brackets the unedited model's, `first`."""
    table = Table(title=title, pad_edge=False)
    for column in ("", *WAYS):
        table.add_column(column, justify="left" if not column else "right")
    for when in ("immediate", "retained"):
        for what in ("efficacy", "paraphrase", "portability", "neighbourhood", "neighbourhood_paper"):
            keys = [f"editing/{when}/{way}/{what}" for way in WAYS]
            if any(key in last for key in keys):
                table.add_row(f"{when} {what}", *(_with_start(first, last, key) for key in keys))
        table.add_section()
    if "editing/retained/fluency" in last:
        table.add_row("retained fluency (bits)", "", "", _with_start(first, last, "editing/retained/fluency"))
    return table


def _with_start(first: Mapping[str, Any], last: Mapping[str, Any], key: str) -> str:
    if key not in last:
        return ""
    return f"{last[key]:.3f}" + (f" ({first[key]:.3f})" if key in first else "")


def summarise(rows: Rows, chance: Mapping[str, float]) -> dict[str, float]:
    """Per ability and for `retained`: area under the curve of what is left (1 = nothing lost), what is left at the end,
    and edits until 10 % and 50 % of it are lost; where that had not come, `…_lost_censored_at`, the last edit measured.
    Where there are no data there is neither."""
    first, summary = rows[0], {}
    curves = {name: [_left(row.get(f"ability/{name}"), first[f"ability/{name}"], chance[name]) for row in rows]
              for name in first.get("measurable", [])}  # fmt: skip
    curves["retained"] = [row.get("ability/retained") for row in rows]
    for name, left in curves.items():
        points = [(row["n_edits"], share) for row, share in zip(rows, left, strict=True) if share is not None]
        if not points:
            continue
        x, y = np.array(points, dtype=float).T
        summary[f"summary/{name}/left"] = float(y[-1])
        if x[-1] > x[0]:
            summary[f"summary/{name}/area"] = float(np.trapezoid(y, x) / (x[-1] - x[0]))
        for percent in (10, 50):
            lost = x[y <= 1 - percent / 100 + 1e-9]
            if len(lost):
                summary[f"summary/{name}/edits_until_{percent}_percent_lost"] = float(lost[0])
            elif x[-1] > x[0]:
                summary[f"summary/{name}/edits_until_{percent}_percent_lost_censored_at"] = float(x[-1])
    return summary


def _left(score: float | None, base: float, chance: float) -> float | None:
    return None if score is None else (score - chance) / (base - chance)


def paired_examples(before: pd.DataFrame, after: pd.DataFrame, name: str) -> tuple[tuple, tuple]:
    """(numerators, denominators) before and after, of the examples that both have."""
    frames = [frame[(frame["kind"] == "ability") & (frame["name"] == name)] for frame in (before, after)]
    both = frames[0].merge(frames[1], on="doc_id", suffixes=("_0", "_1"))
    return ((both["numerator_0"], both["denominator_0"]), (both["numerator_1"], both["denominator_1"]))
