"""What `replay.*` asks of a run that is there: measure it after any of its edits, find a collapse, write it as a model.

Every point measured is a row of the run's own results, on the disk before the next is begun.
"""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from afteredit.commands.rebuild import Past
from afteredit.evaluate.abilities.build import check_files
from afteredit.evaluate.retention import share_left
from afteredit.launch.endings import Interrupted, Interruption
from afteredit.launch.experiment import Experiment, Settings
from afteredit.record.run_directory import RunDirectory
from afteredit.store.atomic_files import write_json
from afteredit.store.errors import BadInput

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from afteredit.model.lm import LM


def replay(x: Experiment, load: Callable[[], LM], console: Console) -> Path:
    """Returns the directory of the run, whose own keys `x` holds already (`config.as_it_ran`); holds its lock.

    Raises BadInput, before the model is loaded wherever the files can tell; Interrupted, with every row kept.
    """
    asked, folder = x.replay, Path(str(x.replay.run))
    if asked.collapse is not None:
        x = _with_only(x, asked.collapse)
    check_files(x.tasks, x.settings)
    with RunDirectory(x, folder) as run, Interruption() as interruption:
        past = Past(x, run, load, console, interruption)
        if asked.at is not None:
            past.check_border(asked.at)
        try:
            if asked.collapse is not None:
                find_crossing(past, asked.collapse, 1 - asked.drop)
            elif asked.at is not None and asked.export is not None:
                export(past, asked.at, Path(asked.export))
            elif asked.at is not None:
                if run.results.has(asked.at):
                    console.log(f"measured already after {asked.at} edits; the weights are rebuilt and compared")
                    past.rebuild(asked.at)
                past.row(asked.at)
        except Interrupted:
            console.log("[bold]stopped[/bold]; every row measured is kept; the same command goes on from there")
            raise
        if asked.export is None:
            console.print(_table(past, asked.collapse))
            console.print(f"results  {run.results.path}", highlight=False, soft_wrap=True)
    return folder


def find_crossing(past: Past, task: str, level: float) -> None:
    """Says between which neighbouring borders the share of `task` that is left falls to `level`, if it does."""
    run, base = past.run, past.row(0)
    if task not in base["measurable"]:
        raise BadInput(f"replay.collapse={task}: the unedited model does not stand above chance on it "
                       f"({base[f'ability/{task}']:.3f}, chance {run.abilities[task].chance:g}), so there is nothing "
                       "to lose; take more rows (limit=…) or another task")  # fmt: skip
    steps = math.ceil(math.log2(max(1, len(past.borders) - 1)))
    past.console.log(f"bisecting {past.borders[-1]} edits: {steps + 1} evaluations at most")
    found = crossing(past.borders, lambda n_edits: _share(past, task, n_edits), level)
    sides = found or (past.borders[-1],)
    left = ", ".join(f"{_share(past, task, n):.2f} of {task} is left after {n} edits" for n in sides)
    if found:
        verdict = f"[bold]a crossing of {level:g}[/bold]: {left} (a curve may fall and rise: there can be others)"
    else:
        verdict = f"[bold]no crossing found[/bold]: {left}, the last of this run: more than {level:g}"
    past.console.log(verdict, highlight=False)


def _share(past: Past, task: str, n_edits: int) -> float:
    """Returns the share of `task` that is left after so many edits, which are measured where they are not yet."""
    key = f"ability/{task}"
    return share_left(past.row(n_edits)[key], past.row(0)[key], past.run.abilities[task].chance)


def crossing(borders: Sequence[int], share: Callable[[int], float], level: float) -> tuple[int, int] | None:
    """Neighbours (a, b) with share(a) > level ≥ share(b), by bisection; None where the last is above the level.

    One of possibly many: a curve may fall and rise.  At the first border all is left; `share` is asked at the last and
    at ⌈log₂(len(borders) − 1)⌉ others at most.
    """
    if len(borders) == 1 or share(borders[-1]) > level:
        return None
    low, high = 0, len(borders) - 1
    while high - low > 1:
        middle = (low + high) // 2
        if share(borders[middle]) > level:
            low = middle
        else:
            high = middle
    return borders[low], borders[high]


def export(past: Past, n_edits: int, target: Path) -> None:
    """Writes a folder that `from_pretrained` reads, whole or not at all: what metrics see (a constraint's view), in the
    model's dtype.  Measures nothing."""
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise BadInput(f"replay.export={target} is there and not empty; give a new folder")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise BadInput(f"replay.export={target}: the folder cannot be made there: {problem}") from None
    lm, model = past.rebuild(n_edits), past.x.model
    temporary = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with lm.weights.seen_through(past.x.constraint.view):
            lm.model.save_pretrained(temporary)
        lm.tokenizer.save_pretrained(temporary)
        origin = {"run": past.run.folder.name, "n_edits": n_edits, "weights_sha256": lm.weights.sha256(),
                  "source": model.source, "revision": model.revision, "start_token": model.start_token}  # fmt: skip
        write_json(temporary / "afteredit.json", origin)
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    past.console.log(f"[bold]written[/bold] to {target}: the model after {n_edits} edits, as metrics see it")
    if model.start_token is not None:
        past.console.log(f"in this run {model.start_token} stood in front of every text: put it there too")


def _table(past: Past, task: str | None) -> Table:
    """The points looked at, beside the unedited model."""
    from rich.table import Table

    table = Table()
    names = list(past.run.abilities)
    for column in ("edits", *names, *([f"{task} left"] if task else []), "perplexity"):
        table.add_column(column, justify="right")
    for n_edits in sorted({0, *past.visited}):
        row = past.run.results.row(n_edits)
        cells = [row[f"ability/{name}"] for name in names] + ([_share(past, task, n_edits)] if task else [])
        table.add_row(str(n_edits), *(f"{cell:.3f}" for cell in cells), f"{row['drift/perplexity']:.1f}")
    return table


def _with_only(x: Experiment, task: str) -> Experiment:
    """`x` with no other ability than `task`: a search measures nothing else."""
    if task in x.tasks:
        return dataclasses.replace(x, tasks={task: x.tasks[task]}, settings=_harness(x, []))
    if task in x.settings.harness:
        return dataclasses.replace(x, tasks={}, settings=_harness(x, [task]))
    known = [*x.tasks, *x.settings.harness]
    raise BadInput(f"replay.collapse={task} is none of this command's tasks ({', '.join(known) or 'none'}); give "
                   f"task=[{task}], or harness=[{task}] for one that lm-eval ships")  # fmt: skip


def _harness(x: Experiment, names: list[str]) -> Settings:
    return dataclasses.replace(x.settings, harness=names)
