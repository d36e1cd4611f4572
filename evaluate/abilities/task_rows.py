"""Reads a task's rows from the embedded mini set, a folder of files of rows, or the hub."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from afteredit.evaluate.abilities.labels import with_classes
from afteredit.store.errors import BadInput
from afteredit.store.rows.normal_text import shown
from afteredit.store.rows.row import Row, look_up
from afteredit.store.rows.row_files import (
    EMBEDDED,
    how_to_fill,
    hub_rows,
    read_rows,
    refuse_no_file,
    refuse_no_folder,
    similar_files,
)
from afteredit.store.rows.text_files import why_no_file


def find_rows(task: str, files: list[str], data: str) -> Path:
    """Returns the first of `files` that the folder holds; the embedded file has the first name.  A name that begins
    with ./ is looked up where the command is run.

    Raises BadInput where it holds none of them, or where something else has the name of one.
    """
    refuse_no_folder(data)
    folder = EMBEDDED if data == "mini" else Path(data)
    paths = [Path(name) if name.startswith("./") else folder / name for name in files]
    for path in paths:
        refuse_no_file(path)
        if not why_no_file(path):
            return path
    there = "".join(map(similar_files, paths))
    raise BadInput(f"task={task}: no rows in {folder}{there}: looked for {' or '.join(files)}; put one "
                   f"there, name another file (task.{task}.rows=[...]), leave the task out (task=[...]) or use "
                   "data=mini")  # fmt: skip


def read_task_rows(task: str, files: list[str], hub: Mapping[str, Any], data: str) -> list[Row]:
    """Returns a task's rows as they stand, with their places.  Raises BadInput where they cannot be had."""
    source = hub.get("path", "") if data == "hub" else find_rows(task, files, data)
    rows = list(_from_hub(task, hub) if data == "hub" else read_rows(Path(source)))
    if not rows:
        raise BadInput(f"task={task}: {source} holds no rows; {how_to_fill(str(source))}")
    return rows


def load_rows(
    task: str, files: list[str], hub: Mapping[str, Any], labels: Mapping[str, list[list[Any]]], data: str,
    limit: int | None = None, **_: Any,
) -> dict[str, Any]:  # fmt: skip
    """Returns {"test": datasets.Dataset} of the first `limit` rows, as lm-eval's `custom_dataset` must.

    Raises BadInput for an empty file, rows with different columns or kinds of values, or a label that is no class.
    """
    import datasets

    rows = read_task_rows(task, files, hub, data)
    for row in rows:
        if not isinstance(row.value, Mapping):
            raise BadInput(f"{row.place}: the row is {shown(row.value)}; allowed: a JSON object, as "
                           f"{{\"column\": value, …}}, with the columns of task={task}")  # fmt: skip
        if set(row.value) != set(rows[0].value):
            raise BadInput(f"{row.place}: the columns are {shown(sorted(row.value))}; allowed: those of the first row, "
                           f"{shown(sorted(rows[0].value))}; give every row the same columns")  # fmt: skip
    values = [with_classes(row, labels) for row in rows]
    try:
        return {"test": datasets.Dataset.from_list(values[:limit])}
    except (ValueError, TypeError, OverflowError) as problem:  # those of pyarrow are among them
        _refuse_mixed_kinds(rows, values)
        raise BadInput(f"{rows[0].place} and after: {problem}; give every column values of one kind") from None


def _refuse_mixed_kinds(rows: list[Row], values: list[dict[str, Any]]) -> None:
    """Raises BadInput for the first value of another kind than the first one of its column, or of no kind."""
    import pyarrow

    for column in values[0]:
        first = next((row[column] for row in values if row[column] is not None), None)
        for row, value in zip(rows, values, strict=True):
            try:
                pyarrow.array([first, value[column]])
            except (ValueError, TypeError, OverflowError):
                raise BadInput(f"{row.place}: field {column} is {shown(value[column])}; allowed: numbers of 64 bits, "
                               f"and values of one kind in all rows (the first is {shown(first)}); write each as a "
                               "text, or leave the column out") from None  # fmt: skip


def _from_hub(task: str, hub: Mapping[str, Any]) -> Iterable[Row]:
    """Yields the hub's rows under our names of the columns; what a column holds may be named by a path into it."""
    if not hub:
        raise BadInput(f"task={task} names no hub data set; use data=mini or data=<folder>")
    paths = hub.get("columns", {})
    renamed = {path.partition(".")[0] for path in paths.values()}
    for row in hub_rows(hub["path"], hub.get("name"), split=hub["split"], revision=hub.get("revision")):
        kept = {column: value for column, value in row.value.items() if column not in renamed}
        yield Row(row.number, row.place, kept | {name: look_up(row.value, path) for name, path in paths.items()})
