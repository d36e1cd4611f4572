"""Reads rows from JSON-lines files and hub data sets, and looks up their values by dotted path."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from afteredit.store.errors import BadInput

EMBEDDED = Path(__file__).resolve().parent.parent / "data"


def read_json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Yields (line number, row) for every non-empty line.  Raises BadInput with the file and line of malformed JSON."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise BadInput(f"{path}: cannot be read as UTF-8 text: {problem}") from None
    for line, content in enumerate(text.split("\n"), start=1):
        if content.strip():
            try:
                row = json.loads(content)
                json.dumps(row, ensure_ascii=False).encode()  # half a surrogate pair is JSON, but not text
                yield line, row
            except ValueError as problem:
                raise BadInput(f"{path}:{line}: not JSON: {problem}; one JSON object per line is expected") from None


def hub_rows(path: str, *config: str | None, **options: Any) -> Any:
    """Returns a hub data set, or the rows of the JSON file at a URL.

    Raises BadInput, with the name that was looked for and a remedy, if the data set cannot be loaded.
    """
    import datasets

    try:
        if "://" in path:
            return datasets.load_dataset("json", data_files=path, **options)
        return datasets.load_dataset(path, *config, **options)
    except (OSError, ValueError) as problem:
        reason = str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__
        raise BadInput(f"data set {path!r} could not be loaded ({reason}); let this machine reach the hub, "
                       "or use local rows (data=mini, data=<folder>)") from None  # fmt: skip


class Missing(BadInput):
    """Says that a row has no such column."""


def look_up(row: Any, path: str) -> Any:
    """Returns the value at the dotted path; None if it, or an object on the way to it, is null.

    Raises Missing if there is no such key or index, and BadInput if the path goes through a value that is neither an
    object nor a list.
    """
    value = row
    for step in path.split("."):
        if value is None:
            return None
        try:
            value = value[int(step)] if isinstance(value, list) else value[step]
        except (KeyError, IndexError, TypeError, ValueError) as problem:
            known = sorted(value) if isinstance(value, Mapping) else type(value).__name__
            kind = Missing if isinstance(problem, KeyError | IndexError) else BadInput
            raise kind(f"no {path!r} in the row; at {step!r} there is: {known}") from None
    return value


def has(row: Any, path: str) -> bool:
    """Says whether the row has a value, or null, at the dotted path."""
    try:
        look_up(row, path)
    except BadInput:
        return False
    return True


def paths(value: Any, before: str = "") -> Iterator[str]:
    """Yields the dotted paths of a row's columns."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from paths(inner, f"{before}.{name}" if before else name)
    elif before:
        yield before
