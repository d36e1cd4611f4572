"""Experiments that are composed without the tasks, which take half of the time, where nothing is asked about tasks."""

from __future__ import annotations

from collections.abc import Iterable

from afteredit.launch.command_line import compose as compose_all
from afteredit.launch.experiment import Experiment


def compose(overrides: Iterable[str]) -> Experiment:
    """Composes what is asked for, without tasks where the overrides do not speak of them."""
    given = list(overrides)
    return compose_all(given if any("task" in override for override in given) else [*given, "task=none"])
