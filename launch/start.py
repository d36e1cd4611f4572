"""Starts what a command line describes: one experiment, or with -m several."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from afteredit.launch.command_line import compose
from afteredit.launch.endings import Interrupted, OneOfManyFailed, exit_code
from afteredit.launch.experiment import Experiment
from afteredit.launch.sweep_agent import overrides_from_agent
from afteredit.record.terminal import print_in_any_encoding
from afteredit.store.errors import BadInput, refuse_keys, refuse_secrets


def start(argv: Sequence[str], run: Callable[[Experiment], Any]) -> int:
    """Calls `run` with the experiment that `argv` describes (with -m: with several) and returns the exit code."""
    print_in_any_encoding()
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # run.py sets it while modules are imported
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["MPLBACKEND"] = "Agg"  # pictures are files; Jupyter hands children a backend of its own
    logging.raiseExceptions = False  # a full disk under the output is told once, without a traceback
    os.environ.setdefault("TQDM_DISABLE", "1")  # the libraries' own progress bars would break ours
    try:
        if sys.flags.optimize > 1:
            raise BadInput("PYTHONOPTIMIZE=2 (python -OO) takes away the docstrings, from which transformers makes its "
                           "models; unset it, or set it to 1")  # fmt: skip
        _refuse_other_encodings(argv)
        _refuse_no_folder()
        for argument in argv:  # before Hydra prints them
            key, _, value = argument.partition("=")
            refuse_secrets(value, key)
            refuse_keys(argument)
        if {"--help", "-h"} & set(argv):
            from afteredit.launch.help.page import print_help

            print_help()
            return 0
        overrides = overrides_from_agent(argv)
        if any(argument.startswith("-") for argument in overrides):
            from afteredit.launch.multirun import hydra_command_line, options_first

            hydra_command_line(options_first(argv), run)
        else:
            run(compose(overrides))
    except OneOfManyFailed:
        return 2
    except (Exception, Interrupted, KeyboardInterrupt) as problem:
        return exit_code(problem)
    return 0


def _refuse_no_folder() -> None:
    """Raises BadInput where the working folder was removed: every path is seen from it."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise BadInput("the working folder is not there any more; go to one that is: cd <folder>") from None


def _refuse_other_encodings(argv: Sequence[str]) -> None:
    """Raises BadInput for an argument that is no text in UTF-8: it would be in names, files and what W&B shows."""
    for argument in argv:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise BadInput(f"{ascii(argument)} is no text in UTF-8; write it, or name the file, in UTF-8") from None
