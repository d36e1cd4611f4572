"""Says what is wrong with a line of a run directory whose checksum is right: anybody can write one.

Each function is given the record and those before it, and returns a clause, or None where nothing is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from reprlib import repr as shown
from typing import Any

Line = Mapping[str, Any]
LARGEST = 2**53  # every integer up to it is a float of its own


def is_number(value: Any) -> bool:
    """Tells whether the value is a number; NaN and infinity are."""
    return isinstance(value, float) or (type(value) is int and abs(value) <= LARGEST)


def is_count(value: Any) -> bool:
    """Tells whether the value is a whole number from 0."""
    return type(value) is int and 0 <= value <= LARGEST


def abilities_of(keys: Iterable[str]) -> list[str]:
    """Returns the names of the abilities whose scores stand in a row with these keys, in their order."""
    return [key.removeprefix("ability/") for key in keys
            if key.startswith("ability/") and key.count("/") == 1 and key != "ability/retained"]  # fmt: skip


def fault_of_row(row: Line, before: Sequence[Line]) -> str | None:
    """Looks at a row of results: its numbers are numbers, and it has the abilities of the row at 0 edits."""
    if not is_count(row.get("n_edits")):
        return f"n_edits is {shown(row.get('n_edits'))}, not a number of edits"
    for key, value in row.items():
        if "/" in key and not is_number(value):
            return f"{key} is {shown(value)}, not a number"
        if key.endswith("sha256") and not isinstance(value, str):
            return f"{key} is {shown(value)}, not a text"
    chance, measurable = row.get("chance", {}), row.get("measurable", [])
    if not isinstance(chance, dict) or not all(map(is_number, chance.values())):
        return f"chance is {shown(chance)}, not a number for each ability"
    if not isinstance(measurable, list) or not all(f"ability/{name}" in row for name in measurable):
        return f"measurable is {shown(measurable)}, not a list of the row's abilities"
    first = next((other for other in before if other["n_edits"] == 0), row)
    needed = ["drift/perplexity", *(f"ability/{name}" for name in abilities_of(first))]
    lost = [key for key in needed if key not in row]
    if lost:
        return f"{lost[0]} is not in it"
    twice = any(other["n_edits"] == row["n_edits"] and other != row for other in before)
    return f"a row before it has other numbers for n_edits={row['n_edits']}" if twice else None


def fault_of_edit(record: Line, _before: Sequence[Line] = ()) -> str | None:
    """Looks at a record of the journal."""
    requests, diagnostics = record.get("requests"), record.get("diagnostics", {})
    if not is_count(record.get("n_edits")):
        return f"n_edits is {shown(record.get('n_edits'))}, not a number of edits"
    if not isinstance(requests, list) or not all(isinstance(request, dict) for request in requests):
        return f"requests is {shown(requests)}, not a list of facts"
    if not isinstance(diagnostics, dict) or not all(map(is_number, diagnostics.values())):
        return f"diagnostics is {shown(diagnostics)}, not numbers by name"
    if not is_number(record.get("edit_s", 0.0)):
        return f"edit_s is {shown(record['edit_s'])}, not a number"
    return _fault_of_samples(record.get("immediate", []))


def fault_of_immediate(row: Line, _before: Sequence[Line] = ()) -> str | None:
    """Looks at a row of the success right after an edit."""
    generated = row.get("generated", [])
    if not is_count(row.get("batch")) or not is_count(row.get("n_edits")):
        return f"batch is {shown(row.get('batch'))} and n_edits {shown(row.get('n_edits'))}, which are no numbers"
    if not isinstance(generated, list) or not all(isinstance(text, dict) and "request" in text for text in generated):
        return f"generated is {shown(generated)}, not a list of texts"
    return _fault_of_samples(row.get("immediate"))


def _fault_of_samples(samples: Any) -> str | None:
    good = isinstance(samples, list) and all(
        isinstance(sample, dict) and isinstance(sample.get("name"), str) and is_number(sample.get("score"))
        for sample in samples)  # fmt: skip
    return None if good else f"immediate is {shown(samples)}, not a list of scores"


def gap(records: Sequence[Line]) -> int | None:
    """Returns the place of the first record of a journal, or of immediate success, before which one is missing."""
    n_edits = 0
    for place, record in enumerate(records):
        n_edits += len(record.get("requests", []))
        if record.get("batch", place) != place or ("requests" in record and record["n_edits"] != n_edits):
            return place
    return None
