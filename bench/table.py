"""bench/results.json: one row per thing measured, named; every script replaces its own rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from afteredit.edit.journal import write_json

PATH = Path(__file__).resolve().parent / "results.json"
COLUMNS = ("name", "ours_s", "baseline_s", "speedup", "bound_speedup", "gflops")  # what every row has; null: none


def read_rows(path: Path = PATH) -> list[dict[str, Any]]:
    return list(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else []


def write_rows(rows: Sequence[Mapping[str, Any]], path: Path = PATH) -> None:
    """Each in the place of the row of its name, or at the end; all or nothing."""
    names = {row["name"]: dict.fromkeys(COLUMNS) | dict(row) for row in rows}
    kept = [names.pop(row["name"], row) for row in read_rows(path)]
    write_json(path, [*kept, *names.values()])
