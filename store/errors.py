"""The errors that a user can do something about, and the wish of a user that a run stop."""

from __future__ import annotations

import errno
import re
import signal
from typing import Any

ADDRESS = re.compile(r"(?<=://)[^\s'\"]+")
USER_OF_ADDRESS = re.compile(r"(?<=://)[^\s/?#'\"]*@")  # the user, and often a password or token
SECRET_OF_QUERY = re.compile(  # its name, as in `?access_token=…` and in presigned addresses, and its value
    r"(?<=[?&;#])((?:[\w.%-]*(?:token|key|secret|signature|passwo?r?d|pwd|credentials?|auth|jwt|key-?(?:pair-?)?id)|sig"
    r"|x-(?:amz|goog)-[\w-]+)=)[^&;#]+", re.IGNORECASE
)  # fmt: skip

_KEY_FOR_A_JOB = re.compile(  # HF_TOKEN=…, or {HF_TOKEN: …}, in one of Hydra's own keys
    r"^[+~]*hydra[./].*(?:token|api_?key|secret|passw\w*)['\"]?\s*[=:]\s*\S", re.IGNORECASE
)

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_RIGHT = (errno.EROFS, errno.EACCES, errno.EPERM)
REMEDIES = {**dict.fromkeys(NO_ROOM, "make room"), **dict.fromkeys(NO_RIGHT, "make it readable and writable"),
            errno.EPIPE: "keep what reads it open"}  # fmt: skip
NO_NAME = (errno.ENAMETOOLONG, errno.ELOOP)  # wherever such a path is looked at


NO_MEMORY = re.compile(r"out of memory|(?:allocate|enough) memory|bad_alloc", re.IGNORECASE)


def out_of_memory(problem: BaseException) -> bool:
    """Tells whether memory ran out, of the machine or of a device: each library says so in another way."""
    return isinstance(problem, MemoryError) or (isinstance(problem, Exception) and bool(NO_MEMORY.search(str(problem))))


class BadInput(ValueError):
    """Something that the user gave cannot be used; the message says what was given, what is allowed, what to do.

    Addresses stand in the message without their user and password, and without the keys in their query.
    """

    def __init__(self, message: str):
        super().__init__(without_secrets(message))


def without_secrets(text: str) -> str:
    """Returns the text with the user, the password and the keys of a query left out of the addresses in it."""
    return ADDRESS.sub(lambda found: SECRET_OF_QUERY.sub(r"\1", found[0]), USER_OF_ADDRESS.sub("", text))


def refuse_secrets(value: Any, key: str = "") -> None:
    """Raises BadInput for an address with a user, a password or a key, wherever it stands in the values."""
    if isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            refuse_secrets(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, str) and without_secrets(value) != value:
        raise BadInput(f"{key} is {value!r} with a user or a password (or a key in its query) in its address, which "
                       "would be kept with the run; leave them out, and log in by ~/.netrc, HF_TOKEN or `wandb login`, "
                       "or fetch the file first")  # fmt: skip


def refuse_keys(argument: str) -> None:
    """Raises BadInput for an override that gives a job a key of W&B's, the hub's or another's: Hydra keeps it."""
    if _KEY_FOR_A_JOB.search(argument):
        raise BadInput(f"{argument.partition('=')[0]} would be kept with the runs in clear; set the variable before "
                       "the command: HF_TOKEN=… python run.py …")  # fmt: skip


class NoEdit(BadInput):
    """A method finds no edit for the model as it is: bad input where the model is unedited, else a collapse."""


class Interrupted(BaseException):
    """The run was asked to stop; everything made before is on the disk.

    It is no Exception, as KeyboardInterrupt is none: it may be raised inside a library that catches every Exception.
    """

    def __init__(self, signal_number: int):
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number
