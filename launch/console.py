"""The terminal of a run: the console that everything is printed to, and the log that goes there too."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def new_console() -> Console:
    """Returns a console to which the log of this project's packages is printed as well."""
    from rich.console import Console
    from rich.logging import RichHandler

    console = Console()
    log = logging.getLogger("afteredit")
    log.handlers = [RichHandler(console=console, show_path=False, show_level=False)]
    log.setLevel(logging.INFO)
    log.propagate = False
    return console
