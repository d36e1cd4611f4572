"""Rows of JSON lines and JSON arrays, read by our own reader, which knows the line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from afteredit.store.errors import BadInput
from afteredit.store.rows.normal_text import shown
from afteredit.store.rows.row import Pairs, Row

EXPECTED = "one JSON object per line, or one array of objects, is expected"
BY_PANDAS = ' (pandas: to_json(…, orient="records"))'
MOST_DIGITS = 4000  # of a whole number; Python reads no more than 4,300


def json_rows(path: Path, text: str, bad: Callable[[BadInput], None]) -> Iterator[Row]:
    """Yields the rows of a JSON text.  `bad` is called with each line that is no JSON.

    Raises BadInput, naming file and line, where an array cannot be read to its end.
    """
    yield from _array_rows(path, text) if text.lstrip().startswith("[") else _lines(path, text, bad)


def loads(text: str) -> Any:
    """Returns the value, with every object as Pairs and null for NaN, which pandas writes where a value is missing."""
    return _DECODER.decode(text)


def is_whole_table(value: Any) -> bool:
    """Tells whether an object holds columns and no row, as pandas writes a table by default: its members are objects
    with the same names, or lists of one length; or all rows, in a member that is called data or rows."""
    members = list(value.values()) if isinstance(value, dict) and len(value) > 1 else []
    rows = [value[name] for name in ("data", "rows") if members and isinstance(value.get(name), list)]
    if any(within and all(isinstance(row, dict | list) for row in within) for within in rows):
        return True
    for kind in (dict, list):
        if members and all(isinstance(member, kind) and len(member) == len(members[0]) > 0 for member in members):
            return kind is list or all(member.keys() == members[0].keys() for member in members)
    return False


def _lines(path: Path, text: str, bad: Callable[[BadInput], None]) -> Iterator[Row]:
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            value = loads(content)
        except (ValueError, RecursionError) as problem:
            if not content.strip().endswith("}"):
                _refuse_one_object(path, text)
            bad(BadInput(f"{path}:{line}: not JSON: {_reason(problem)}; {EXPECTED}"))
        else:
            yield Row(line, f"{path}:{line}", value)


def _array_rows(path: Path, text: str) -> Iterator[Row]:
    """Yields the elements of one array, each with the line that it begins on."""
    at, counted, line, number = text.index("["), 0, 1, 0
    try:
        at = _next(text, at + 1)
        while text[at : at + 1] != "]" or number:
            line, counted, number = line + text.count("\n", counted, at), at, number + 1
            value, at = _DECODER.raw_decode(text, at)
            yield Row(number, f"{path}:{line} (row {number})", value)
            at = _next(text, at)
            if text[at : at + 1] != ",":
                break
            at = _next(text, at + 1)
        if text[at : at + 1] != "]":
            raise json.JSONDecodeError("a comma or the end of the array is missing", text, at)
        if text[at + 1 :].strip():
            raise json.JSONDecodeError("something stands after the array", text, _next(text, at + 1))
    except (ValueError, RecursionError) as problem:
        line = problem.lineno if isinstance(problem, json.JSONDecodeError) else line
        raise BadInput(f"{path}:{line}: not JSON: {_reason(problem)}; {EXPECTED}") from None


def _constant(name: str) -> float | None:
    return None if name == "NaN" else float(name)


def _whole_number(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits is too long; write it as a text, in quotes")
    return int(digits)


_DECODER = json.JSONDecoder(object_pairs_hook=Pairs, parse_constant=_constant, parse_int=_whole_number)


def _reason(problem: Exception) -> str:
    if isinstance(problem, RecursionError):
        return "it is nested too deeply"
    return f"{problem.msg} (column {problem.colno})" if isinstance(problem, json.JSONDecodeError) else str(problem)


def _next(text: str, at: int) -> int:
    """Returns the first place from `at` on that is no white space."""
    while text[at : at + 1].isspace():
        at += 1
    return at


def _refuse_one_object(path: Path, text: str) -> None:
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        return
    if isinstance(whole, dict):
        raise BadInput(f"{path}: holds one JSON object, with the keys {shown(sorted(whole))}; give its rows as one "
                       f"array of objects, or one object per line{BY_PANDAS * is_whole_table(whole)}")  # fmt: skip
