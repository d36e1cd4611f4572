"""Keeps each text once, however often it is said: a table holds references, made of the content, in their place."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from reprlib import repr as shown
from typing import Any

from afteredit.store.checked_lines import Lines, read_lines

Texts = Mapping[str, str | None]  # by reference; None where a copy of the run leaves the text out
FILE = "texts.jsonl"
COLUMNS = ("question", "wanted", "choices", "answer")  # of a table: they hold references


def reference(text: str) -> str:
    """Returns the reference to a text: 64 bits of its SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class SharedTexts:
    """`texts.jsonl` of a folder; a line holds, under `texts`, those that no line before it held."""

    def __init__(self, folder: Path, *, fall_back: bool = False, read_only: bool = False):
        """Raises BadInput where a line does not match its checksum; see `Lines` for `fall_back` and `read_only`."""
        self._lines = Lines(folder / FILE, fall_back=fall_back, read_only=read_only)
        self._lines.refuse(fault_of_texts)
        self.texts = _together(self._lines.records)

    def keep(self, texts: Iterable[str]) -> None:
        """Adds those texts that are not there yet.  They are on the disk when this returns."""
        new = {reference(text): text for text in texts}
        new = {name: text for name, text in new.items() if self.texts.get(name) is None}
        if new:
            self._lines.append({"texts": new})
            self.texts |= new


def read_texts(folder: Path) -> tuple[dict[str, str | None], list[str]]:
    """Returns the undamaged texts of a folder by reference, and a sentence about each line that is left out."""
    records, faults = read_lines(folder / FILE, fault_of_texts)
    return _together(records), faults


def fault_of_texts(record: Mapping[str, Any], _before: Sequence[Mapping[str, Any]] = ()) -> str | None:
    """Says what is wrong with a line: its texts are texts, and the references are theirs."""
    texts = record.get("texts")
    if not isinstance(texts, dict) or not all(isinstance(text, str | None) for text in texts.values()):
        return f"texts is {shown(texts)}, not texts by their references"
    wrong = [name for name, text in texts.items() if text is not None and reference(text) != name]
    return f"{wrong[0]} is not the reference to {shown(texts[wrong[0]])}" if wrong else None


def _together(records: Iterable[Mapping[str, Any]]) -> dict[str, str | None]:
    return {name: text for record in records for name, text in record["texts"].items()}
