"""Reads the rows of Parquet files, and the names of class labels there and in hub data sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from afteredit.store.errors import BadInput
from afteredit.store.rows.normal_text import normal_form
from afteredit.store.rows.row import Row
from afteredit.store.rows.stand_ins import refuse_stand_in
from afteredit.store.rows.text_files import why_no_file


def parquet_rows(path: Path, bad: Callable[[BadInput], None]) -> Iterator[Row]:
    """Yields the rows of a Parquet file.  `bad` is called with each row that cannot be read.

    Raises BadInput where the file or its columns cannot be read.
    """
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    reason = why_no_file(path)
    if reason:
        raise BadInput(f"{path}: {reason}; give a file")
    refuse_stand_in(path)
    try:
        with open(path, "rb") as file:
            table = ParquetFile(file).read()
        names = [normal_form(name) for name in table.column_names]
    except (OSError, ArrowException, UnicodeDecodeError) as problem:
        raise BadInput(f"{path}: cannot be read as Parquet: {problem}") from None
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadInput(f"{path}: there are two columns of the name {', '.join(twice)}; name each column once")
    features = _features(path, table.schema)
    for number, cells in enumerate(zip(*table.columns, strict=True), start=1):
        place = f"{path}: row {number}"
        try:
            row = {name: _value(name, cell) for name, cell in zip(table.column_names, cells, strict=True)}
        except ValueError as problem:
            bad(BadInput(f"{place}: {problem}"))
        else:
            yield Row(number, place, with_label_names(row, features))


def with_label_names(row: Mapping[str, Any], features: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a row of `datasets` or pyarrow with the names of its class labels in place of their numbers."""
    return {column: _label_names(value, features.get(column)) for column, value in row.items()}


def _label_names(value: Any, feature: Any) -> Any:
    if isinstance(value, list):
        return [_label_names(inner, getattr(feature, "feature", None)) for inner in value]
    names = getattr(feature, "names", None)
    return names[value] if names and isinstance(value, int) and 0 <= value < len(names) else value


def _value(name: str, cell: Any) -> Any:
    """Returns the value of a pyarrow scalar.  Raises ValueError for one that Python has no value for: a time beyond its
    calendar or in an unknown zone, or a text that is not UTF-8."""
    from pyarrow import ArrowException

    try:
        return cell.as_py()
    except (ValueError, LookupError, OverflowError, ArrowException) as problem:
        raise ValueError(f"field {name} is a {cell.type} that cannot be read ({problem}); write it as a text in UTF-8, "
                         "or leave the column out") from None  # fmt: skip


def _features(path: Path, schema: Any) -> Mapping[str, Any]:
    """Returns the features that `datasets` sees.  Raises BadInput where the columns, or what the file's metadata says
    of them, cannot be read."""
    from datasets import Features

    wrong = (ValueError, TypeError, LookupError, AttributeError)
    try:
        bare = Features.from_arrow_schema(schema.remove_metadata())
    except wrong as problem:
        raise BadInput(f"{path}: a column is of a kind that cannot be read: {problem}; leave it out") from None
    if b"huggingface" not in (schema.metadata or {}):
        return bare
    try:
        return Features.from_arrow_schema(schema)
    except wrong as problem:
        raise BadInput(f"{path}: the metadata \"huggingface\", which names class labels, cannot be read ({problem}); "
                       "write the file again without it, with the labels as texts") from None  # fmt: skip
