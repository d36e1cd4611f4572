"""Writes the table of verdicts under a picture, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from afteredit.analysis.numbers.cell_text import signed
from afteredit.analysis.study.published import SUCCESS, TASKS

HEAD = "| panel | curve | scoring | beside | x | published change | change here, 95 % |"
ORDERS, UNPARSEABLE = " over orders |", " unparseable |"  # shown where there are several, and where answers are read


def verdict_table(judged: pd.DataFrame) -> Iterator[str]:
    """Yields the lines of the table, one for each verdict; none without verdicts."""
    if judged.empty:
        return
    several, read = bool((judged["orders"] > 1).any()), bool(judged["unparseable"].notna().any())
    head = HEAD + ORDERS * several + UNPARSEABLE * read + " distance | verdict |"
    yield head
    yield "|" + "---|" * (head.count("|") - 1)
    order = judged["quantity"].map({name: i for i, name in enumerate([*TASKS, *SUCCESS])})
    judged = judged.assign(rank=order).sort_values(["rank", "scoring"], ascending=[True, False], kind="stable")
    for row in judged.to_dict("records"):
        cells = [row["quantity"], _curve(row), row["scoring"], row["published_model"], str(row["x"]),
                 _number(row, "published_change"), _change(row)]  # fmt: skip
        cells += [_over_orders(row)] * several + [_unparseable(row)] * read
        yield f"| {' | '.join([*cells, _number(row, 'distance'), row['verdict']])} |"
    yield ""


def _curve(row: Mapping[str, Any]) -> str:
    parts = [row["constraint"]] if row["constraint"] != "none" else []
    parts += [f"× {row['batch_size']}"] if row["batch_size"] > 1 else []
    parts += [row["order"]] if row["order"] != "file" else []
    return " ".join([row["method"], *parts])


def _change(row: Mapping[str, Any]) -> str:
    interval = "" if pd.isna(row["low"]) else f" [{_number(row, 'low')}, {_number(row, 'high')}]"
    return _number(row, "change") + interval


def _over_orders(row: Mapping[str, Any]) -> str:
    if row["orders"] < 2:
        return ""
    return f"{row['orders']}: {_number(row, 'orders_low')} to {_number(row, 'orders_high')}"


def _unparseable(row: Mapping[str, Any]) -> str:
    """Returns the share of answers that could not be read, before and after the edits."""
    shares = [f"{row[key]:.2f}" for key in ("unparseable_before", "unparseable") if not pd.isna(row[key])]
    return " → ".join(shares)


def _number(row: Mapping[str, Any], key: str) -> str:
    return signed(f"{row[key]:+{',.0f' if row['quantity'] == 'manhattan' else '.2f'}}")
