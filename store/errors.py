"""The errors that a user can do something about: each message says what was given, what is allowed, what to do."""

from __future__ import annotations


class BadInput(ValueError):
    """Something the user gave cannot be used; the message says what was given, what is allowed and what to do."""


class NoEdit(BadInput):
    """A method finds no edit for the model as it is: bad input where the model is unedited, else a collapse."""
