"""The terminal of a run: the console that everything is printed to, and the log that goes there too."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def new_console() -> Console:
    """Returns a console to which the log of this project's packages is printed as well."""
    from afteredit.record.terminal import PlainConsole, log_handler

    console = PlainConsole()
    log = logging.getLogger("afteredit")
    log.handlers = [log_handler(console)]
    log.setLevel(logging.INFO)
    log.propagate = False
    return console
