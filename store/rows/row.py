"""One row of a file or data set: its texts in their normal form, and what stands in it at a dotted path."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from afteredit.store.errors import BadInput
from afteredit.store.rows.normal_text import normal_form, shown


@dataclass(frozen=True)
class Row:
    """Holds one row.  `number` counts rows, but for JSON lines, where it is the line; `place` is what messages say."""

    number: int
    place: str
    value: Any


class Pairs(list[Any]):
    """Holds the members of a JSON object before they are checked."""


class Missing(BadInput):
    """A row has no such column."""


def stop(problem: BadInput) -> None:
    """Raises the problem: what is done about a bad row unless it is to be skipped."""
    raise problem


def normal_rows(rows: Iterable[Row], bad: Callable[[BadInput], None] = stop) -> Iterator[Row]:
    """Yields the rows with every text in its normal form and null for NaN."""
    for row in rows:
        try:
            value = _normal(row.value)
        except RecursionError:
            bad(BadInput(f"{row.place}: is nested too deeply; a row holds texts, lists and objects of texts"))
        except ValueError as problem:
            bad(BadInput(f"{row.place}: {problem}"))
        else:
            yield Row(row.number, row.place, value)


def look_up(row: Any, path: str) -> Any:
    """What stands at the dotted path; None where null stands there or on the way.  A `*` leads into every item of a
    list, and gives the list of what stands there.  Raises Missing, or BadInput where the path leads through what is no
    object or list."""
    if isinstance(row, Mapping) and path in row:  # a table's column may have a dot in its name
        return row[path]
    value, steps = row, path.split(".")
    for i, step in enumerate(steps):
        if value is None:
            return None
        if step == "*" and isinstance(value, list):
            rest = ".".join(steps[i + 1 :])
            return [look_up(item, rest) for item in value] if rest else value
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


def _normal(value: Any) -> Any:
    """Returns a value with its texts in normal form.  Raises ValueError for no text, or a name that stands twice."""
    if isinstance(value, str):
        return normal_form(value)
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, Mapping | Pairs):
        pairs = value if isinstance(value, Pairs) else list(value.items())
        members = {normal_form(name): _normal(inner) for name, inner in pairs}
        if len(members) < len(pairs):
            raise ValueError(f"a name stands twice among {shown([name for name, _ in pairs])}; keep one of them")
        return members
    return [_normal(inner) for inner in value] if isinstance(value, list) else value
