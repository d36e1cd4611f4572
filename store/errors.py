"""The errors that a user can do something about, and the wish of a user that a run stop."""

from __future__ import annotations

import signal


class BadInput(ValueError):
    """Something that the user gave cannot be used; the message says what was given, what is allowed, what to do."""


class NoEdit(BadInput):
    """A method finds no edit for the model as it is: bad input where the model is unedited, else a collapse."""


class Interrupted(BaseException):
    """The run was asked to stop; everything made before is on the disk.

    It is no Exception, as KeyboardInterrupt is none: it may be raised inside a library that catches every Exception.
    """

    def __init__(self, signal_number: int):
        super().__init__(signal.Signals(signal_number).name)
        self.exit_code = 128 + signal_number
