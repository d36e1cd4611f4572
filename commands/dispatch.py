"""Finds the command that an experiment asks for in the place of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from afteredit.launch.experiment import Experiment, Locate, PlannedBy

if TYPE_CHECKING:
    from afteredit.record.terminal import PlainConsole


def other_command(x: Experiment) -> Callable[[Experiment, PlainConsole], Path] | None:
    """Returns the function that answers the experiment; None where it asks for a run."""
    if x.replay.run is not None:
        from afteredit.commands.replay import replay

        return replay
    if x.locate.what is Locate.trace:
        from afteredit.commands.locate.trace import trace_layers

        return trace_layers
    if x.locate.what is Locate.tune:
        from afteredit.commands.locate.tune import tune_model

        return tune_model
    if x.plan.by is not PlannedBy.none:
        from afteredit.commands.plan.said import plan

        return plan
    return None
