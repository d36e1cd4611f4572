"""How a command ends early: the exit code and the line of one that cannot go on."""

from __future__ import annotations

import signal

from afteredit.store.errors import NO_NAME, NO_RIGHT, REMEDIES, BadInput, Interrupted, out_of_memory


class OneOfManyFailed(Exception):
    """One of several runs of a command failed; the reason was printed when it happened."""


def exit_code(problem: BaseException) -> int:
    """Returns the exit code of a command that ends with `problem`, and prints what to do about it.

    Raises `problem` again where nothing can be said about it.
    """
    from afteredit.record.terminal import print_error

    if isinstance(problem, Interrupted):
        return problem.exit_code
    if isinstance(problem, KeyboardInterrupt):
        print_error("stopped")
        return 128 + signal.SIGINT
    known = isinstance(problem, BadInput) or (isinstance(problem, OSError) and problem.errno in (*REMEDIES, *NO_NAME))
    if not known and not out_of_memory(problem):
        raise problem
    print_error(in_words(problem))
    return 2


def in_words(problem: BaseException) -> str:
    """Returns what to do about a problem: an OSError says neither that nor what is kept."""
    if out_of_memory(problem) and not isinstance(problem, BadInput):
        said = " ".join(str(problem).split())[:200] or type(problem).__name__
        return (f"not enough memory ({said}); every edit and checkpoint before this is kept: free some, or take a "
                "smaller model or dtype=bfloat16 (the same command with plan=machine says what it needs)")  # fmt: skip
    if isinstance(problem, OSError) and problem.errno in NO_NAME:
        return f"{problem.strerror}: {problem.filename}; give another path (a name holds up to 255 bytes)"
    if not isinstance(problem, OSError) or problem.errno not in REMEDIES:
        return str(problem)
    fault = f"{problem.filename or 'a file'} cannot be {'used' if problem.errno in NO_RIGHT else 'written'}"
    return (f"{problem.strerror}: {fault}; every edit and checkpoint before this is kept: "
            f"{REMEDIES[problem.errno]}, and the same command goes on from there")  # fmt: skip
