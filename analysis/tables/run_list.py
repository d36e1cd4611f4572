"""The list of runs in the terminal: how far each is, what is left of its model, and when it moved last."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from rich.table import Table
from rich.text import Text

from afteredit.analysis.read.run_states import RunState
from afteredit.record.terminal import visible

RETAINED = "ability/retained"
EFFICACY = "editing/retained/generated/efficacy"
STYLES = {"running": "green", "collapsed": "red", "stopped": "yellow", "pending": "dim"}


def run_list(states: Sequence[RunState], root: Path) -> Table:
    """Returns one row for each run, by its place in `root`."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold underline")
    table.add_column("run", overflow="fold")
    for heading in ("edits", "state", "retained", "efficacy", "changed"):
        table.add_column(heading, justify="left" if heading == "state" else "right", overflow="fold")
    for state in states:
        name = state.folder.relative_to(root) if state.folder != root else Path(state.folder.resolve().name)
        planned = "?" if state.planned is None else state.planned
        table.add_row(visible(str(name)), f"{state.n_edits}/{planned}", state_in_words(state),
                      as_text(state, RETAINED), as_text(state, EFFICACY), ago(state.changed))  # fmt: skip
    return table


def state_in_words(state: RunState) -> Text:
    """Returns the state in its colour, and that files are damaged."""
    style = next((style for word, style in STYLES.items() if word in state.state), "")
    return Text(state.state, style=style) + Text(", damaged" if state.faults else "", style="red")


def as_text(state: RunState, key: str) -> str:
    """Returns the last number under `key`, a dash where there is none."""
    value = state.last(key)
    return "-" if value is None else f"{value:.2f}"


def ago(seconds: float) -> str:
    """Returns how long ago a time was, or its day where that is more than one."""
    past = max(0, round(time.time() - seconds))
    if past >= 86400:
        return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M}"
    for unit, size in (("h", 3600), ("min", 60)):
        if past >= size:
            return f"{past // size} {unit} ago"
    return f"{past} s ago"
