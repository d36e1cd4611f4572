"""How a command that could not go on ends: its exit code, and one line that says what to do."""

from __future__ import annotations

import errno

from afteredit.launch.interruption import Interrupted

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_RIGHT = (errno.EROFS, errno.EACCES, errno.EPERM)


def ended(problem: BaseException) -> int:
    """The exit code.  Raises `problem` again where it is an OSError without a remedy."""
    if isinstance(problem, Interrupted):
        return problem.exit_code
    if isinstance(problem, OSError):
        if problem.errno not in (*NO_ROOM, *NO_RIGHT):
            raise problem
        room = problem.errno in NO_ROOM
        what = f"{problem.filename or 'the run directory'} cannot be {'written' if room else 'used'}"
        remedy = "make room" if room else "make it readable and writable"
        complain(f"{problem.strerror}: {what}; every edit and checkpoint before this is kept: {remedy}, and the same "
                 "command goes on from there")  # fmt: skip
        return 2
    complain(problem)
    return 2


def complain(problem: BaseException | str) -> None:
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True).print(Text("error: ", style="bold red") + Text(str(problem)), soft_wrap=True)
