"""bench/results.json, one row per thing measured, named, and the README's table of them; every script replaces its own
rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from afteredit.edit.journal import write_atomically, write_json

PATH = Path(__file__).resolve().parent / "results.json"
README = PATH.parent.parent / "README.md"
BEGIN, END = "<!-- bench: written by `make bench` -->", "<!-- /bench -->"
COLUMNS = ("name", "ours_s", "baseline_s", "speedup", "bound_speedup", "gflops")  # what every row has; null: none


def read_rows(path: Path = PATH) -> list[dict[str, Any]]:
    return list(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else []


def write_rows(rows: Sequence[Mapping[str, Any]], path: Path = PATH, readme: Path = README) -> None:
    """Each in the place of the row of its name, or at the end; all or nothing.  Then the table in `readme`."""
    names = {row["name"]: dict.fromkeys(COLUMNS) | dict(row) for row in rows}
    kept = [names.pop(row["name"], row) for row in read_rows(path)]
    write_json(path, [*kept, *names.values()])
    text = readme.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    write_atomically(readme, f"{before}{BEGIN}\n{as_markdown(read_rows(path))}{END}{after}".encode())


def as_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows that have a baseline: what was taken, and how far from the bound that is."""
    lines = ["| | ours | baseline | faster | bound | GFLOP/s of the machine's |", "|---|---|---|---|---|---|"]
    for row in rows:
        if row["baseline_s"] is None:
            continue
        bound = "" if row["bound_speedup"] is None else f"{row['bound_speedup']:.1f} ×"
        rate = "" if row["gflops"] is None else f"{row['gflops']:.0f} of {row['machine_gflops']:.0f}"
        lines.append(f"| {row['name']} | {row['ours_s']:.2f} s | {row['baseline_s']:.2f} s | "
                     f"**{row['speedup']:.1f} ×** | {bound} | {rate} |")  # fmt: skip
    return "\n".join(lines) + "\n"
