"""Starts `run.py` in processes of its own that need not import everything again: they are forked from one that has."""

from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "afteredit.run",
        "afteredit.model.lm",
        "afteredit.edit.editor",
        "afteredit.evaluate.measure",
        "afteredit.record.tracking.tracker",
        "afteredit.analysis.tables.run_end",
        "transformers.models.llama.modeling_llama",
        "lm_eval.api.task",
        "hydra",
        "wandb",
    ]
)


def begin_run(
    arguments: list[str], environment: dict[str, str], output: Path
) -> multiprocessing.context.ForkServerProcess:
    """Begins a run in a process and a session of its own; what it prints goes to `output`."""
    process = FORKS.Process(target=_run, args=(arguments, environment, output))
    process.start()
    return process


def _run(arguments: list[str], environment: dict[str, str], output: Path) -> None:
    from afteredit.run import main

    os.setsid()
    os.chdir(output.parent)
    os.environ.clear()
    os.environ.update(environment)
    with output.open("w") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    sys.exit(main(arguments))
