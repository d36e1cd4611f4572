"""Shows runs in the terminal: a list of those in a folder, or the curves of one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from afteredit.analysis.read.made import addresses, made
from afteredit.analysis.read.run_states import RunState, run_states
from afteredit.analysis.tables.run_list import ago, run_list, state_in_words
from afteredit.analysis.tables.text_curves import text_curves
from afteredit.record.terminal import PlainConsole, bold, so_many_edits
from afteredit.store.plain_json import printable

BESIDE_CURVES = 56  # columns of names and numbers
LONGEST = 60  # columns of a curve


def show(paths: Sequence[Path], console: PlainConsole) -> list[str]:
    """Prints the runs in each of the folders; returns what is damaged in them.

    Raises BadInput where one holds none.
    """
    faults = []
    for path in paths:
        states = run_states(path)
        if states[0].folder == path:
            _show_one(states[0], console)
        else:
            console.print(run_list(states, path))
        faults += [fault for state in states for fault in state.faults]
    return faults


def _show_one(state: RunState, console: PlainConsole) -> None:
    planned = "?" if state.planned is None else state.planned
    console.print(bold(state.folder.resolve().name, f"   {state.n_edits} of {planned} edits, ") + state_in_words(state)
                  + f", {ago(state.changed)}")  # fmt: skip
    if state.collapsed is not None:
        n_edits, condition = state.collapsed
        console.print(bold(f"collapsed at {so_many_edits(n_edits)}", f": {condition}", style="bold red"))
    begun = {name: rows for name, rows in state.evaluations.items() if rows and rows[0]["n_edits"] == 0}
    for name, rows in begun.items():
        if len(state.evaluations) > 1:
            console.print(f"results-{name}")
        console.print(text_curves(rows, max(10, min(LONGEST, console.width - BESIDE_CURVES))))
    if not begun:
        console.print("the unedited model is not measured yet, so there are no curves")
    if weights := state.environment.get("weights"):
        console.print(f"weights  {printable(str(weights))}", highlight=False)
    for command in made(state.environment, "").commands:
        console.print(f"command  {command}", highlight=False, soft_wrap=True)
    for url in addresses(state.environment):
        console.print(f"W&B      {url}", highlight=False, soft_wrap=True)
