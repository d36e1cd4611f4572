"""Reads a task's rows from the embedded mini set, a folder of JSON-lines files, or the hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from afteredit.store.errors import BadInput
from afteredit.store.json_rows import EMBEDDED, hub_rows, read_json_lines


def find_rows(task: str, files: list[str], data: str) -> Path:
    """Returns the first of `files` that the folder holds; the embedded file has the first name.

    Raises BadInput where it holds none of them.
    """
    folder = EMBEDDED if data == "mini" else Path(data)
    if not folder.is_dir():
        raise BadInput(f"data={data}: no such folder; allowed: mini, hub, or a folder of JSON-lines files")
    for name in files:
        if (folder / name).is_file():
            return folder / name
    raise BadInput(f"task={task}: no rows in {folder}: looked for {' or '.join(files)}; put one there, leave the task "
                   "out (task=[...]) or use data=mini")  # fmt: skip


def load_rows(task: str, files: list[str], hub: Mapping[str, Any], data: str, **_: Any) -> dict[str, Any]:
    """Returns {"test": datasets.Dataset}, as lm-eval's `custom_dataset` must.

    Raises BadInput for an empty file, or rows with different columns.
    """
    import datasets

    if data == "hub":
        return {"test": _from_hub(task, hub)}
    path = find_rows(task, files, data)
    rows = [row for _, row in read_json_lines(path)]
    columns = set(rows[0]) if rows else set()
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or set(row) != columns:
            raise BadInput(f"{path}:{number}: columns are {sorted(row)}; every row must have {sorted(columns)}")
    if not rows:
        raise BadInput(f"{path}: holds no rows")
    return {"test": datasets.Dataset.from_list(rows)}


def _from_hub(task: str, hub: Mapping[str, Any]) -> Any:
    """Returns the hub's rows under our names of the columns; class labels become their names."""
    if not hub:
        raise BadInput(f"task={task} names no hub data set; use data=mini or data=<folder>")
    rows = hub_rows(hub["path"], hub.get("name"), split=hub["split"], revision=hub.get("revision"))
    for ours, theirs in hub.get("columns", {}).items():
        if ours != theirs:
            rows = rows.rename_column(theirs, ours)
    for column in hub.get("label_names", []):
        names = rows.features[column]
        names = getattr(names, "feature", names)  # a list of labels, or one
        rows = rows.map(lambda row, c=column, n=names: {c: n.int2str(row[c])}, features=_as_text(rows.features, column))
    return rows


def _as_text(features: Any, column: str) -> Any:
    import datasets

    features = features.copy()
    is_list = not isinstance(features[column], datasets.ClassLabel)
    features[column] = datasets.List(datasets.Value("string")) if is_list else datasets.Value("string")
    return features
