"""The terminal of a run: the console that everything is printed to, the log, and what is under way."""

from __future__ import annotations

import logging
import os
from functools import partial
from typing import TYPE_CHECKING

from afteredit.launch.experiment import Experiment

if TYPE_CHECKING:
    from afteredit.record.terminal import PlainConsole


def new_console(x: Experiment) -> PlainConsole:
    """Returns a console to which the log of this project's packages is printed as well, and what is under way.

    Where several runs share the terminal, the name of this one stands before its lines.
    """
    from afteredit.record.display.live_view import live_view
    from afteredit.record.terminal import PlainConsole, log_handler
    from afteredit.store.progress.work import watch_by

    console = PlainConsole(shared=_is_shared(), label="-".join(x.names.get(key, key) for key in ("method", "model")))
    log = logging.getLogger("afteredit")
    log.handlers = [log_handler(console)]
    log.setLevel(logging.INFO)
    log.propagate = False
    watch_by(partial(live_view, console))
    return console


def _is_shared() -> bool:
    """Tells whether other runs may write to the same terminal: those of a sweep's agents, or of a launcher of Hydra's
    that starts several at a time."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if "WANDB_SWEEP_ID" in os.environ:
        return True
    if not HydraConfig.initialized() or HydraConfig.get().mode is not RunMode.MULTIRUN:
        return False
    return "basic_launcher" not in str(HydraConfig.get().launcher.get("_target_"))
