"""Rows as they come from JSON-lines files and hub data sets, and what stands in them at a dotted path."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from afteredit.store.errors import BadInput

EMBEDDED = Path(__file__).resolve().parent.parent / "data"


def read_json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number, row) of every non-empty line.  Raises BadInput naming file and line of malformed JSON."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise BadInput(f"{path}: cannot be read as UTF-8 text: {problem}") from None
    for line, content in enumerate(text.split("\n"), start=1):
        if content.strip():
            try:
                row = json.loads(content)
                json.dumps(row, ensure_ascii=False).encode()  # half a surrogate pair is JSON, but no text
                yield line, row
            except ValueError as problem:
                raise BadInput(f"{path}:{line}: not JSON: {problem}; one JSON object per line is expected") from None


def hub_rows(path: str, *config: str | None, **options: Any) -> Any:
    """A hub data set, or the JSON file at an address.  Raises BadInput, with what was looked for and the remedy, where
    it cannot be had."""
    import datasets

    try:
        if "://" in path:
            return datasets.load_dataset("json", data_files=path, **options)
        return datasets.load_dataset(path, *config, **options)
    except (OSError, ValueError) as problem:
        reason = str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__
        raise BadInput(f"data set {path!r} could not be had from the hub ({reason}); let this machine reach the hub, "
                       "or use local rows (data=mini, data=<folder>)") from None  # fmt: skip


class Missing(BadInput):
    """A row has no such column."""


def look_up(row: Any, path: str) -> Any:
    """What stands at the dotted path; None where null stands there or on the way.  Raises Missing, or BadInput where
    the path leads through what is no object or list."""
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
    try:
        look_up(row, path)
    except BadInput:
        return False
    return True


def paths(value: Any, before: str = "") -> Iterator[str]:
    """The dotted paths of a row's columns."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from paths(inner, f"{before}.{name}" if before else name)
    elif before:
        yield before
