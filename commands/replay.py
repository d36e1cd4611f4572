"""Answers what `replay.*` asks of an earlier run: measure it after any of its edits, measure what is pending, find
a collapse, export a model, talk to it.

Every point that is measured becomes a row of the run's own results, on the disk before the next point is begun.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from afteredit.commands.chat import chat
from afteredit.commands.collapse_search import RETAINED, find_crossing, share_after
from afteredit.commands.export.export_model import export
from afteredit.commands.pending import measure_pending
from afteredit.commands.rebuild import RebuiltRun
from afteredit.evaluate.abilities.build import check_files
from afteredit.launch.experiment import Experiment
from afteredit.launch.opening import open_folder
from afteredit.record.terminal import PlainConsole, bold
from afteredit.store.errors import BadInput, Interrupted
from afteredit.store.interruption import Interruption

if TYPE_CHECKING:
    from rich.table import Table


def replay(x: Experiment, console: PlainConsole) -> Path:
    """Returns the directory of the run, whose own keys `x` holds already (stored_config.py); holds its lock.

    Raises BadInput, before the model is loaded wherever the files can tell; Interrupted, with every row kept.
    """
    wish, folder = x.replay, Path(str(x.replay.run))
    if wish.collapse is not None:
        x = _with_only(x, wish.collapse)
    if wish.pending:
        measure_pending(x, folder, console)
        return folder
    check_files(x.tasks, x.settings)
    with open_folder(x, folder, read_only=True) as run, Interruption() as interruption:
        rebuilt = RebuiltRun(x, run, console, interruption)
        if wish.at is not None:
            rebuilt.check_border(wish.at)
        try:
            if wish.collapse is not None:
                find_crossing(rebuilt, wish.collapse, 1 - wish.drop)
            elif wish.at is not None and wish.export is not None:
                export(rebuilt, wish.at, Path(wish.export))
            elif wish.at is not None and wish.chat:
                chat(rebuilt, wish.at)
            elif wish.at is not None:
                if run.results.has(wish.at):
                    console.log(f"measured already after {wish.at} edits; the weights are rebuilt and compared")
                    rebuilt.rebuild(wish.at)
                rebuilt.row(wish.at)
        except Interrupted:
            console.log(bold("stopped", "; every row measured is kept; the same command goes on from there"))
            raise
        if wish.export is None and not wish.chat:
            console.print(_table(rebuilt, wish.collapse))
            console.print(f"results  {run.results.path}", highlight=False, soft_wrap=True)
    return folder


def _table(rebuilt: RebuiltRun, task: str | None) -> Table:
    """Returns a table of the points that were measured or read, beside the unedited model."""
    from rich.table import Table

    table = Table()
    names = list(rebuilt.run.chance)
    for column in ("edits", *names, *([f"{task} left"] if task else []), "perplexity"):
        table.add_column(column, justify="right")
    for n_edits in sorted({0, *rebuilt.visited}):
        row = rebuilt.run.results.row(n_edits)
        cells = [row[f"ability/{name}"] for name in names] + ([share_after(rebuilt, task, n_edits)] if task else [])
        table.add_row(str(n_edits), *(f"{cell:.3f}" for cell in cells), f"{row['drift/perplexity']:.1f}")
    return table


def _with_only(x: Experiment, task: str) -> Experiment:
    """Returns `x` with no other ability than `task`, since a search measures nothing else; with all for `retained`.

    Raises BadInput where none is asked.
    """
    known = [*x.tasks, *x.settings.harness]
    if task == RETAINED and known:
        return x
    if task not in known:
        remedy = (f"task=[{task}], or harness=[{task}] for one of lm-eval's" if task != RETAINED else
                  "those that are averaged: task=[nli,sentiment], or task=all")  # fmt: skip
        raise BadInput(f"replay.collapse={task} is none of this command's tasks ({', '.join(known) or 'none'}); give "
                       f"{remedy}")  # fmt: skip
    tasks = {task: x.tasks[task]} if task in x.tasks else {}
    settings = dataclasses.replace(x.settings, harness=[] if tasks else [task])
    return dataclasses.replace(x, tasks=tasks, settings=settings)
