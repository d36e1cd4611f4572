"""Starts what a command line describes: one experiment, or with -m several."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from afteredit.launch.command_line import compose
from afteredit.launch.endings import Interrupted, OneOfManyFailed, exit_code
from afteredit.launch.experiment import Experiment
from afteredit.launch.sweep_agent import overrides_from_agent
from afteredit.record.terminal import print_in_any_encoding
from afteredit.store.errors import BadInput


def start(argv: Sequence[str], run: Callable[[Experiment], Any]) -> int:
    """Calls `run` with the experiment that `argv` describes (with -m: with several) and returns the exit code."""
    print_in_any_encoding()
    os.environ.setdefault("TQDM_DISABLE", "1")  # the libraries' own progress bars would break ours
    try:
        if any(argument.startswith("-") for argument in argv):
            from afteredit.launch.multirun import hydra_command_line

            hydra_command_line(argv, run)
        else:
            run(compose(overrides_from_agent(argv)))
    except (BadInput, OSError, Interrupted) as problem:
        return exit_code(problem)
    except OneOfManyFailed:
        return 2
    return 0
