"""Reads class labels of every usual kind: names, numbers, true and false; what is none of the classes is refused.

lm-eval would score an unknown label as wrong, or take it for the first class, and say nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from afteredit.store.errors import BadInput
from afteredit.store.rows.normal_text import shown, spelling
from afteredit.store.rows.row import Row

Classes = Sequence[Sequence[Any]]  # of each class its names, of which the first is the one that the task uses


def with_classes(row: Row, labels: Mapping[str, Classes]) -> dict[str, Any]:
    """Returns the row with the task's own names of its classes.

    `labels` holds the classes of each label column; `column.*` is one that holds a list of labels.
    """
    values = dict(row.value)
    for path, classes in labels.items():
        column = path.removesuffix(".*")
        if column not in values:
            raise BadInput(f"{row.place}: has no column {column}; its columns: {', '.join(sorted(values))}; give "
                           f"the label of each row there: {_allowed(classes)}")  # fmt: skip
        given, place = values[column], f"{row.place}: field {column}"
        if path == column:
            values[column] = _class(given, classes, place)
        elif isinstance(given, list):
            values[column] = [_class(label, classes, place) for label in given]
        else:
            raise BadInput(f"{place} is {shown(given)}; allowed: a list of {_allowed(classes)}")
    return values


def _class(label: Any, classes: Classes, place: str) -> Any:
    """Returns the first name of the class that a label means: a name of it in any spelling, or its number from 0.

    True and false mean a class only where they are among its names: which answer they are must not be guessed.
    """
    matches = [names for names in classes if any(_same(label, name) for name in names)]
    number = _number(label)
    if not matches and number is not None and 0 <= number < len(classes):
        matches = [classes[number]]
    if len(matches) != 1:
        raise BadInput(f"{place} is {shown(label)}; allowed: {_allowed(classes)}")
    return matches[0][0]


def _same(label: Any, name: Any) -> bool:
    if isinstance(label, str):
        return _folded(label) == _folded(str(name))
    return isinstance(label, bool) and label is name


def _number(label: Any) -> int | None:
    """Returns the whole number that a label is, also written as text or, as pandas does, with ".0"."""
    if isinstance(label, str):
        digits = label.removesuffix(".0")
        return int(digits) if digits.isascii() and digits.isdigit() else None
    if isinstance(label, bool) or not isinstance(label, int | float):
        return None
    return int(label) if isinstance(label, int) or label.is_integer() else None


def _folded(name: str) -> str:
    return spelling(name).replace("_", " ").replace("-", " ")


def _allowed(classes: Classes) -> str:
    ways = (dict.fromkeys(map(str, (*names, number))) for number, names in enumerate(classes))
    return ", ".join(map(" or ".join, ways))
