"""What is shown of a run at its end: a picture, the numbers that a sweep compares, and tables.  Reads its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from afteredit.analysis.numbers.run_summary import summarise
from afteredit.analysis.numbers.single_edits import averaged, summarise_models
from afteredit.analysis.pictures.run_curves import draw_curves
from afteredit.analysis.read.run_folders import read_run
from afteredit.analysis.tables.answers import answers_table
from afteredit.analysis.tables.run_tables import editing_table, final_table
from afteredit.analysis.tables.same_questions import same_questions, same_questions_table
from afteredit.store.plain_json import printable

N_CHECKPOINTS = 5  # at which the answers to the same questions are shown


@dataclass(frozen=True)
class RunEnd:
    """Holds what is shown of a finished run."""

    picture: Path
    summary: dict[str, Any]
    tables: list[Table]
    said: pd.DataFrame  # what was said to each question, see `same_questions`


def run_end(folder: Path, evaluation: str, n_edits: int) -> RunEnd:
    """Writes `curves.png` into a run directory; returns it with the summary and the tables of the first `n_edits`.

    `evaluation` is the digest that names the results file.  Raises BadInput where the directory cannot be read.
    """
    (run,) = (run.up_to(n_edits) for run in read_run(folder, evaluation=evaluation))
    title, answers = folder.name, answers_table(run.edits)
    if run.single:
        run, batch_size = averaged(run), int(run.config.get("batch_size", 1))
        title += f": mean over {len(run.models)} models of {batch_size} edit{'s' * (batch_size > 1)} each"
        summary: dict[str, Any] = dict(summarise_models(run.models, run.n_collapsed))
    else:
        summary = dict(summarise(run.rows, run.chance))
        if run.collapsed_at is not None:
            summary["summary/collapse"] = run.collapsed_at
            summary["summary/collapse_condition"] = run.collapsed[run.collapsed_at]
    if run.n_dropped is not None:
        summary["summary/dropped"] = run.n_dropped
    if run.weights:
        title += f"\nweights: {printable(str(run.weights))}"
    picture = draw_curves(run.rows, run.chance, folder / "curves.png", title)
    said = same_questions(run, N_CHECKPOINTS)
    tables = [final_table(run), editing_table(run), *answers, *([same_questions_table(said)] if len(said) else [])]
    return RunEnd(picture, summary, tables, said)
