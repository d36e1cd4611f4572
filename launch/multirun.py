"""Flags (-m, --cfg) go to Hydra's own command line, which also starts several runs, one after another."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from afteredit.launch.command_line import (
    CONF,
    TAKE_A_VALUE,
    experiment_from,
    explained_after_hydra,
    keys_of_entry,
    refuse_wrong_choices,
    with_search_path,
)
from afteredit.launch.endings import Interrupted, OneOfManyFailed, exit_code, in_words
from afteredit.launch.experiment import Experiment
from afteredit.launch.overrides import as_typed, choices, for_shell
from afteredit.store.errors import BadInput, out_of_memory
from afteredit.store.interruption import Interruption

if TYPE_CHECKING:
    from omegaconf import DictConfig


def hydra_command_line(argv: Sequence[str], run: Callable[[Experiment], Any]) -> None:
    """Calls `run` once, or with -m for each of several experiments; one that fails does not end the others.

    Raises BadInput where Hydra cannot read `argv`, before any run begins; OneOfManyFailed after the last one.
    """
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    _refuse_dashes(argv)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises the error instead of printing it
    argv = with_search_path(argv)
    refuse_wrong_choices(argv)
    sys.argv[1:] = argv = with_keys_of_swept_entries(as_typed(argv))
    try:
        hydra.main(config_path=str(CONF), config_name="run", version_base="1.3")(lambda config: _one(config, run))()
    except (HydraException, OmegaConfBaseException, RecursionError, ValueError, YAMLError) as problem:
        if isinstance(problem, BadInput) or (type(problem) is ValueError and "group" not in str(problem)):
            raise
        raise BadInput(explained_after_hydra(problem, argv)) from None


def _refuse_dashes(argv: Sequence[str]) -> None:
    """Raises BadInput for a key that is written as an option."""
    from omegaconf import OmegaConf

    known = {*map(str, OmegaConf.load(CONF / "run.yaml")), *(path.name for path in CONF.iterdir() if path.is_dir())}
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        key, equals, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and key.partition(".")[0] in known:
            value = value if equals or following.startswith("-") or "=" in following else following
            written = for_shell(f"{key}={value or '…'}")
            raise BadInput(f"{argument}: a key has no dashes, and its value stands behind the sign =: {written}")


def with_keys_of_swept_entries(argv: Sequence[str]) -> list[str]:
    """Returns the arguments with ++ before a key that one of several swept entries of a group has, as in
    `method=memit,alphaedit method.layers=[3,4]`: before any run Hydra holds it against run.yaml's entry alone."""
    entries: dict[str, list[str]] = {}
    for group, _, name in choices(argv):
        if (CONF / group).is_dir() and isinstance(name, str):
            entries.setdefault(group, []).append(name)
    swept = {group: names for group, names in entries.items() if len(names) > 1}

    def belongs(key: str) -> bool:
        group, _, inner = key.partition(".")
        return group in swept and any(inner in keys_of_entry(group, name, argv) for name in swept[group])

    return [f"++{argument}" if belongs(argument.partition("=")[0]) else argument for argument in argv]


def options_first(argv: Sequence[str]) -> list[str]:
    """Returns the arguments with Hydra's own options in front: argparse reads no overrides on both sides of them."""
    values = {i + 1 for i, argument in enumerate(argv) if argument in TAKE_A_VALUE}
    is_option = [i in values or argument.startswith("-") for i, argument in enumerate(argv)]
    return [argv[i] for i in sorted(range(len(argv)), key=lambda i: not is_option[i])]


def _one(config: DictConfig, run: Callable[[Experiment], Any]) -> None:
    import traceback

    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from afteredit.record.terminal import print_error

    try:
        run(experiment_from(config.copy(), HydraConfig.get()))
    except Interrupted as problem:  # the other runs are to stop too
        if problem.signal_number in Interruption.OF_SCHEDULERS:
            signal.raise_signal(problem.signal_number)  # all is written: its handler requeues this job
        sys.exit(exit_code(problem))
    except Exception as problem:
        if HydraConfig.get().mode is not RunMode.MULTIRUN:
            raise
        overrides = " ".join(HydraConfig.get().overrides.task)
        if not isinstance(problem, BadInput | OSError) and not out_of_memory(problem):
            traceback.print_exc()
        print_error(f"{in_words(problem)}  (the run with {overrides}; the others go on)")
        raise OneOfManyFailed from None
    finally:
        _free_memory()


def _free_memory() -> None:
    """Frees the memory of this run's model for the next run."""
    gc.collect()
    if "torch" in sys.modules:
        sys.modules["torch"].cuda.empty_cache()
