"""Says in words what a key takes."""

from __future__ import annotations

WORDS = {"int": "a whole number (1000, not 1,000 or 1.000)", "float": "a number", "bool": "true or false",
         "str": "a text", "None": "null", "list[int]": "a list of whole numbers: [1,2]",
         "list[float]": "a list of numbers: [0.1,0.2]", "list[str]": "a list of texts: [a,b]"}  # fmt: skip


def kind_in_words(annotation: str) -> str:
    """Returns what a field of this annotation takes ("int | None"); of other kinds the annotation itself."""
    return ", or ".join(WORDS.get(kind, kind) for kind in annotation.split(" | "))
