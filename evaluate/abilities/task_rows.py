"""Reads a task's rows from the embedded mini set, a folder of files of rows, or the hub."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from afteredit.evaluate.abilities.labels import with_classes
from afteredit.store.errors import BadInput
from afteredit.store.rows.row import Row
from afteredit.store.rows.row_files import (
    EMBEDDED,
    hub_rows,
    read_rows,
    refuse_no_file,
    refuse_no_folder,
    similar_files,
)
from afteredit.store.rows.text_files import why_no_file


def find_rows(task: str, files: list[str], data: str) -> Path:
    """Returns the first of `files` that the folder holds; the embedded file has the first name.

    Raises BadInput where it holds none of them, or where something else has the name of one.
    """
    refuse_no_folder(data)
    folder = EMBEDDED if data == "mini" else Path(data)
    for name in files:
        refuse_no_file(folder / name)
        if not why_no_file(folder / name):
            return folder / name
    there = "".join(similar_files(folder / name) for name in files)
    raise BadInput(f"task={task}: no rows in {folder}{there}: looked for {' or '.join(files)}; put one "
                   f"there, name another file (task.{task}.rows=[...]), leave the task out (task=[...]) or use "
                   "data=mini")  # fmt: skip


def load_rows(
    task: str, files: list[str], hub: Mapping[str, Any], labels: Mapping[str, list[list[Any]]], data: str, **_: Any
) -> dict[str, Any]:
    """Returns {"test": datasets.Dataset}, as lm-eval's `custom_dataset` must.

    Raises BadInput for an empty file, rows with different columns, or a label that is none of the classes.
    """
    import datasets

    source = hub.get("path", "") if data == "hub" else find_rows(task, files, data)
    rows = list(_from_hub(task, hub) if data == "hub" else read_rows(Path(source)))
    columns = set(rows[0].value) if rows and isinstance(rows[0].value, Mapping) else set()
    for row in rows:
        if not isinstance(row.value, Mapping):
            raise BadInput(f"{row.place}: a row must be a JSON object, got {type(row.value).__name__}")
        if set(row.value) != columns:
            raise BadInput(f"{row.place}: columns are {sorted(row.value)}; every row must have {sorted(columns)}")
    if not rows:
        raise BadInput(f"{source}: holds no rows")
    return {"test": datasets.Dataset.from_list([with_classes(row, labels) for row in rows])}


def _from_hub(task: str, hub: Mapping[str, Any]) -> Iterable[Row]:
    """Yields the hub's rows under our names of the columns."""
    if not hub:
        raise BadInput(f"task={task} names no hub data set; use data=mini or data=<folder>")
    ours = {theirs: name for name, theirs in hub.get("columns", {}).items()}
    for row in hub_rows(hub["path"], hub.get("name"), split=hub["split"], revision=hub.get("revision")):
        yield Row(row.number, row.place, {ours.get(column, column): value for column, value in row.value.items()})
