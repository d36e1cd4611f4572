"""How a command ends early: the exit code and the line of one that cannot go on."""

from __future__ import annotations

import signal

from afteredit.store.errors import NO_RIGHT, REMEDIES, Interrupted


class OneOfManyFailed(Exception):
    """One of several runs of a command failed; the reason was printed when it happened."""


def exit_code(problem: BaseException) -> int:
    """Returns the exit code of a command that ends with `problem`, and prints what to do about it.

    Raises `problem` again where it is an OSError without a remedy.
    """
    from afteredit.record.terminal import print_error

    if isinstance(problem, Interrupted):
        return problem.exit_code
    if isinstance(problem, KeyboardInterrupt):
        print_error("stopped")
        return 128 + signal.SIGINT
    if isinstance(problem, OSError) and problem.errno not in REMEDIES:
        raise problem
    print_error(in_words(problem))
    return 2


def in_words(problem: BaseException) -> str:
    """Returns what to do about a problem: an OSError says neither that nor what is kept."""
    if not isinstance(problem, OSError) or problem.errno not in REMEDIES:
        return str(problem)
    fault = f"{problem.filename or 'a file'} cannot be {'used' if problem.errno in NO_RIGHT else 'written'}"
    return (f"{problem.strerror}: {fault}; every edit and checkpoint before this is kept: "
            f"{REMEDIES[problem.errno]}, and the same command goes on from there")  # fmt: skip
