"""The tables that a run prints at its end: what became of each ability, and editing success."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from afteredit.analysis.numbers.paired_examples import paired
from afteredit.analysis.numbers.single_edits import COVERED, PERPLEXITY, worst
from afteredit.analysis.numbers.statistics import change_interval
from afteredit.analysis.read.run import Run
from afteredit.record.terminal import so_many_edits

WAYS = ("prob", "forced", "generated")
NOT_MEASURABLE = "* not measurable: the unedited model answers by chance"
PROMPTS = ("efficacy", "paraphrase", "portability", "neighbourhood", "neighbourhood_paper")


def final_table(run: Run) -> Table:
    """Returns every ability before the edits and after the last, its change and the 95 % interval of the change.

    With setting=single (of the run that `averaged` gives) the numbers after the edits are means over the models, and
    the worst model's number stands beside them.
    """
    first, last = run.rows[0], run.rows[-1]
    title = f"after {so_many_edits(last['n_edits'])}"
    if run.single:
        title = f"mean over the {len(run.models)} models measured, each edited on its own"
    headings = ["", "chance", "at 0", "mean" if run.single else f"at {last['n_edits']}", "change", "95 % interval",
                *(["worst"] if run.single else [])]  # fmt: skip
    table = _table(title, headings)
    for name, level in run.chance.items():
        key = f"ability/{name}"
        if key in last:
            at_chance = name not in first.get("measurable", [])
            pairs = paired([run], name, run.n_edits)
            interval = "[{:+.3f}, {:+.3f}]".format(*change_interval(*pairs)) if pairs else ""
            table.add_row(name + " *" * at_chance, f"{level:.2f}", *_change(run, key, interval))
            table.caption = NOT_MEASURABLE if at_chance else table.caption
    table.add_section()
    for key, label in (("ability/retained", "retained"), (PERPLEXITY, "perplexity")):
        if key in first and key in last:
            table.add_row(label, "", *_change(run, key, ""))
    table.caption = "\n".join(map(str, filter(None, [_collapses_in_words(run), table.caption]))) or None
    return table


def editing_table(run: Run) -> Table:
    """Returns editing success in the last row by the three criteria; in brackets the unedited model's."""
    first, last = run.rows[0], run.rows[-1]
    title = f"editing success after {so_many_edits(last['n_edits'])} (unedited model)"
    if run.single:
        title = (f"editing success: immediate of {last.get(COVERED, 0)} edits, retained of {len(run.models)} models "
                 "(unedited model)")  # fmt: skip
    table = _table(title, ["", *WAYS], pad_edge=False, caption=_dropped_in_words(run))
    for when in ("immediate", "retained"):
        for what in PROMPTS:
            keys = [f"editing/{when}/{way}/{what}" for way in WAYS]
            if any(key in last for key in keys):
                table.add_row(f"{when} {what}", *(_with_unedited(first, last, key) for key in keys))
        table.add_section()
    if "editing/retained/fluency" in last:
        table.add_row("retained fluency (bits)", "", "", _with_unedited(first, last, "editing/retained/fluency"))
    return table


def _table(title: str, headings: list[str], **options: Any) -> Table:
    table = Table(title=title, **options)
    for heading in headings:
        table.add_column(heading, justify="right" if heading else "left")
    return table


def _change(run: Run, key: str, interval: str) -> list[str]:
    before, after = run.rows[0][key], run.rows[-1][key]
    return [_number(before), _number(after), _number(after - before, "+"), interval,
            *([_number(worst(run.models, key))] if run.models else [])]  # fmt: skip


def _number(value: float, sign: str = "") -> str:
    """Returns a number that leaves a table readable: a broken model's perplexity may have twenty digits."""
    return f"{value:{sign}.3f}" if abs(value) < 1e6 else f"{value:{sign}.1e}"


def _collapses_in_words(run: Run) -> str | None:
    """Returns how many models collapsed with setting=single, None where none did or the edits add up."""
    if not run.single or not run.collapsed:
        return None
    n_others = len(run.collapsed) - run.n_collapsed
    others = f"; NaN in the update of {n_others} that {'was' if n_others == 1 else 'were'} not measured"
    return f"{run.n_collapsed} of {len(run.models)} models collapsed{others if n_others else ''}"


def _dropped_in_words(run: Run) -> str | None:
    """Returns how many edits an anchor left unwritten, None without an anchor."""
    if run.n_dropped is None:
        return None
    n_edits = sum(len(edit["requests"]) for edit in run.edits)
    return f"{run.n_dropped} of {n_edits} edits not written (method.drop_above); every number above counts them"


def _with_unedited(first: Mapping[str, Any], last: Mapping[str, Any], key: str) -> str:
    if key not in last:
        return ""
    return f"{last[key]:.3f}" + (f" ({first[key]:.3f})" if key in first else "")
