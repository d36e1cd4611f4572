"""Finds, by bisection, a batch by which a run has lost a given share of an ability, or of all of them in the mean."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from afteredit.commands.rebuild import RebuiltRun
from afteredit.evaluate.retention import share_left
from afteredit.record.terminal import bold
from afteredit.store.errors import BadInput

RETAINED = "retained"  # in the place of a task: the mean share left of all measurable abilities


def find_crossing(rebuilt: RebuiltRun, task: str, level: float) -> None:
    """Prints between which neighbouring borders the share of `task` that is left falls to `level`, if it does."""
    _refuse_at_chance(rebuilt, task)
    borders, console = rebuilt.borders, rebuilt.console
    n_steps = math.ceil(math.log2(max(1, len(borders) - 1)))
    console.log(f"bisecting {borders[-1]} edits: {n_steps + 1} evaluations at most")
    neighbours = crossing(borders, lambda n_edits: share_after(rebuilt, task, n_edits), level)
    left = ", ".join(f"{share_after(rebuilt, task, n):.2f} of {task} is left after {n} edits"
                     for n in neighbours or borders[-1:])  # fmt: skip
    if neighbours:
        verdict = bold(f"a crossing of {level:g}", f": {left} (a curve may fall and rise: there can be others)")
    else:
        verdict = bold("no crossing found", f": {left}, the last of this run: more than {level:g}")
    console.log(verdict)


def _refuse_at_chance(rebuilt: RebuiltRun, task: str) -> None:
    """Raises BadInput where the unedited model has nothing to lose."""
    base, remedy = rebuilt.row(0), "so there is nothing to lose; take more rows (limit=…) or another task"
    if task == RETAINED and f"ability/{RETAINED}" not in base:
        raise BadInput(f"replay.collapse={RETAINED}: the unedited model stands above chance on none of this command's "
                       f"tasks ({', '.join(rebuilt.run.chance)}), {remedy}")  # fmt: skip
    at_chance = task not in base["measurable"] or not base[f"ability/{task}"] > rebuilt.run.chance.get(task, math.inf)
    if task != RETAINED and at_chance:
        raise BadInput(f"replay.collapse={task}: the unedited model does not stand above chance on it "
                       f"({base[f'ability/{task}']:.3f}, chance {rebuilt.run.chance[task]:g}), {remedy}")  # fmt: skip


def share_after(rebuilt: RebuiltRun, task: str, n_edits: int) -> float:
    """Returns the share of `task` that is left after so many edits; measures it where that has not been done yet."""
    key = f"ability/{task}"
    if task == RETAINED:
        return float(rebuilt.row(n_edits)[key])
    return share_left(rebuilt.row(n_edits)[key], rebuilt.row(0)[key], rebuilt.run.chance[task])


def crossing(borders: Sequence[int], share: Callable[[int], float], level: float) -> tuple[int, int] | None:
    """Returns neighbours (a, b) with share(a) > level ≥ share(b); None where the last border's share is above `level`.

    There may be other such neighbours, since a curve may fall and rise.  All is left at the first border; `share` is
    called for the last border and for ⌈log₂(len(borders) − 1)⌉ others at most.
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
