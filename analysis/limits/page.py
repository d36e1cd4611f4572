"""Writes where methods break: a page with a picture and a table for each model and edit set, and the numbers as CSV."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from afteredit.analysis.limits.lines import left_out, panels
from afteredit.analysis.limits.picture import PANELS, draw
from afteredit.analysis.numbers.cell_text import each, spread, until_text
from afteredit.analysis.numbers.run_summary import summarise
from afteredit.analysis.numbers.run_values import number
from afteredit.analysis.pictures.axes import as_png
from afteredit.analysis.read.run import Run, at, faults_as_markdown
from afteredit.record.terminal import visible
from afteredit.store.atomic_files import make_folder, written_together

TITLE = "# Where methods break"
NOTE = """\
Edits until something: the first checkpoint at which it was seen, so it came between that one and the one before; "> n":
not by n edits, where the run ended. Edits retained are shares of all edits made by then, those that were not written
among them: up to 200 and at the run's end all are asked, in between the first and the last hundred and a hundred by
chance, each counted for as many as it stands for. An ability's share is of what stands above chance: with few rows one
row is much of it.
"""
HALF = 0.5
BESIDE = {"editing/retained/prob/paraphrase": "in other words (%)",
          "editing/retained/prob/neighbourhood": "neighbours unchanged (%)"}  # fmt: skip


def write_limits(runs: Sequence[Run], out: Path) -> Path:
    """Writes limits.md, limits.csv, points.csv and a picture for each panel into `out`; returns the page.

    Raises BadInput.
    """
    shown, page = panels(runs), out / "limits.md"
    tables, points, text = [], [], [TITLE, "", *faults_as_markdown(runs), *_left_out(runs), NOTE]
    make_folder(out)
    with written_together(page, TITLE) as write:
        for index, (title, lines) in enumerate(shown.items(), start=1):
            name = "limits.png" if len(shown) == 1 else f"limits-{index}.png"
            write(out / name, as_png(draw(title, lines), 110))
            table = limits_table(lines)
            tables.append(table.assign(panel=title))
            points += _points(title, lines)
            text += [f"## {title}", "", f"![Abilities and edits retained over the number of edits]({name})", "",
                     *_markdown(table), ""]  # fmt: skip
        write(out / "limits.csv", pd.concat(tables).to_csv(index=False).encode())
        write(out / "points.csv", pd.DataFrame(points).to_csv(index=False).encode())
        write(page, "\n".join(text).encode())
    return page


def limits_table(lines: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """Returns one row per line, as text: edits until losses, and what is left at the end."""
    return pd.DataFrame([_row(label, runs) for label, runs in lines.items()])


def _left_out(runs: Sequence[Run]) -> list[str]:
    return [
        line for run in runs if (why := left_out(run)) for line in (f"- {visible(run.name)} is left out: {why}", "")
    ]


def _row(label: str, runs: Sequence[Run]) -> dict[str, str]:
    ends = [run.n_edits for run in runs]
    prob, generated = list(PANELS)[1:]
    dropped = [run.n_dropped for run in runs if run.n_dropped is not None]
    return {
        "method": label, "batch": each([str(at(run.config, "batch_size", 1)) for run in runs]), "runs": str(len(runs)),
        "edits": each([str(end) for end in ends]),
        "until 10 % of abilities are lost": _until_lost(runs, 10, ends),
        "until 50 % of abilities are lost": _until_lost(runs, 50, ends),
        "until half of the edits no longer hold": _until_half(runs, prob, ends),
        "until half are no longer said": _until_half(runs, generated, ends),
        "collapse": until_text([run.collapsed_at for run in runs], ends),
        "abilities left (%)": _at_the_end(runs, "ability/retained"), "edits that hold (%)": _at_the_end(runs, prob),
        "edits said (%)": _at_the_end(runs, generated),
        **{heading: _at_the_end(runs, key) for key, heading in BESIDE.items()},
        **{f"{name} left (%)": _ability_left(runs, name) for name in runs[0].rows[0].get("measurable", [])},
        "edits not written": each([str(n) for n in dropped]) if dropped else "",
        "s an edit": spread([_seconds(run) for run in runs]),
    }  # fmt: skip


def _until_lost(runs: Sequence[Run], percent: int, ends: Sequence[int]) -> str:
    """Returns the edits until so much is lost; nothing where no ability was measurable."""
    if not all("ability/retained" in row for run in runs for row in run.rows):
        return ""
    key = f"summary/retained/edits_until_{percent}_percent_lost"
    return until_text([summarise(run.rows, run.chance).get(key) for run in runs], ends)


def _until_half(runs: Sequence[Run], key: str, ends: Sequence[int]) -> str:
    """Returns the edits until half or fewer hold; nothing where this was not asked (no true answers)."""
    if not all(key in row for run in runs for row in run.rows[1:]):
        return ""
    return until_text([next((row["n_edits"] for row in run.rows[1:] if row[key] <= HALF), None) for run in runs], ends)


def _at_the_end(runs: Sequence[Run], key: str) -> str:
    value = number(key, 100)
    return spread([value(run, run.rows[-1]) for run in runs])


def _ability_left(runs: Sequence[Run], name: str) -> str:
    left = [summarise(run.rows, run.chance).get(f"summary/{name}/left", math.nan) for run in runs]
    return spread([100 * share for share in left])


def _seconds(run: Run) -> float:
    n_facts = sum(len(edit["requests"]) for edit in run.edits)
    return sum(edit["edit_s"] for edit in run.edits) / n_facts if n_facts else math.nan


def _points(title: str, lines: Mapping[str, Sequence[Run]]) -> list[dict[str, object]]:
    return [{"panel": title, "method": label, "run": run.name, "seed": run.seed, "n_edits": row["n_edits"],
             **{key: row.get(key) for key in (*PANELS, *BESIDE)},
             **{key: row[key] for key in row if key.startswith("ability/") and key.count("/") == 1}}
            for label, runs in lines.items() for run in runs for row in run.rows]  # fmt: skip


def _markdown(table: pd.DataFrame) -> list[str]:
    rows = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return [f"| {' | '.join(row)} |" for row in rows]
