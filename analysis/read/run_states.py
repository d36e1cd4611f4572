"""Says of run directories how far they are, from their files alone: quickly, without the examples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from afteredit.analysis.read.lines_of_a_run import LinesOfARun
from afteredit.record.collapse import collapses
from afteredit.store.checked_lines import read_checked, read_config, refuse_strange_files
from afteredit.store.errors import BadInput
from afteredit.store.line_shapes import fault_of_edit, fault_of_row, is_count, is_number
from afteredit.store.locks.of_a_run import is_held

Row = Mapping[str, Any]


@dataclass(frozen=True)
class RunState:
    """Holds what the files of a run directory say.  `evaluations`: the rows of each results file by its digest, that
    which was changed last at the end."""

    folder: Path
    config: Mapping[str, Any]
    edits: Sequence[Row]
    evaluations: Mapping[str, Sequence[Row]]
    changed: float  # when one of its files was changed last, in seconds since 1970
    running: bool
    environment: Mapping[str, Any] = field(default_factory=dict)
    faults: Sequence[str] = ()

    @property
    def rows(self) -> Sequence[Row]:
        """Returns the rows of the evaluation that was changed last; none where nothing was measured."""
        return list(self.evaluations.values())[-1] if self.evaluations else []

    @property
    def single(self) -> bool:
        return self.config.get("setting") == "single"

    @property
    def n_edits(self) -> int:
        return int(max((row["n_edits"] for row in (*self.edits[-1:], *self.rows[-1:])), default=0))

    @property
    def planned(self) -> int | None:
        """Returns how many edits the last command asked for; None where no config says it yet."""
        n_edits = self.config.get("n_edits")
        return n_edits if is_count(n_edits) else None

    @cached_property
    def collapsed(self) -> tuple[int, str] | None:
        """Returns after how many edits the model collapsed first, and by which condition."""
        stored = self.config.get("collapse_perplexity", math.inf)
        limit = float(stored) if is_number(stored) else math.inf
        met = {} if self.single else collapses(self.edits, self.rows, limit)
        return next(iter(met.items()), None)

    @property
    def state(self) -> str:
        """Returns running, finished, stopped, collapsed, or pending: nothing is measured yet, or not the last edits."""
        words = ["running"] if self.running else []
        if self.collapsed is not None:
            words.append(f"collapsed at {self.collapsed[0]}")
        if words:
            return ", ".join(words)
        if not self.rows:
            return "pending"
        if self.planned is None or self.n_edits < self.planned:
            return "stopped"
        return "finished" if self.rows[-1]["n_edits"] >= self.planned else "pending"

    def last(self, key: str) -> float | None:
        """Returns the number under `key` in the last row, with setting=single its mean over the models; None where
        there is none."""
        numbers = [row[key] for row in (self.rows[1:] if self.single else self.rows[-1:]) if key in row]
        return sum(numbers) / len(numbers) if numbers else None


def run_states(path: Path) -> list[RunState]:
    """Returns the runs in a folder, or the one that it is, in the order in which they were changed.  Raises BadInput
    where there is none."""
    if not path.is_dir():
        raise BadInput(f"{path} is no folder; give run directories, or a folder that holds some: runs/")
    files = (file for name in ("environment.json", "results*.jsonl") for file in path.rglob(name))
    folders = [path] if _is_run(path) else {file.parent for file in files if _is_run(file.parent)}
    if not folders:
        raise BadInput(f"{path} is no run directory and holds none (runs/<method>-<model>-<hash>)")
    return sorted(map(run_state, folders), key=lambda state: state.changed)


def _is_run(folder: Path) -> bool:
    return (folder / "environment.json").is_file() or (
        (folder / "config.yaml").is_file() and any(folder.glob("results*.jsonl"))
    )


def run_state(folder: Path) -> RunState:
    """Returns what the files of one run directory say; what is damaged is named in `faults`."""
    refuse_strange_files(folder)
    faults: list[str] = []
    config, environment = _read(folder / "config.yaml", read_config, faults), _read(folder / "environment.json",
                                                                                   read_checked, faults)  # fmt: skip
    known, written = (environment.get(name) for name in ("evaluations", "lines"))
    n_lines = written if isinstance(written, Mapping) and all(map(is_count, written.values())) else {}
    lines = LinesOfARun(folder, n_lines, faults)
    results = lines.results(None, known if isinstance(known, Mapping) else {})
    files = sorted(results, key=lambda file: file.stat().st_mtime)
    evaluations = {file.stem.partition("-")[2]: _by_edits(lines.read(file, fault_of_row)) for file in files}
    edits = lines.read(folder / "edits.jsonl", fault_of_edit)
    for file, rows in zip(files, evaluations.values(), strict=True):
        if rows and environment:  # a copy of rows alone has no journal
            lines.compare(edits, rows, file)
    written = [file for pattern in ("*.jsonl", "*.json", "*.yaml") for file in folder.glob(pattern)]
    return RunState(folder, config, edits, evaluations,
                    max(file.stat().st_mtime for file in written), is_held(folder), environment,
                    tuple(faults))  # fmt: skip


def _read(path: Path, reader: Any, faults: list[str]) -> dict[str, Any]:
    """Returns what a file holds; nothing where it is not there yet, or is damaged."""
    if not path.is_file():
        return {}
    try:
        return dict(reader(path))
    except BadInput as problem:
        faults.append(str(problem))
        return {}


def _by_edits(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows in order of their edits; of several after as many edits the last."""
    by_edits = {row["n_edits"]: row for row in rows}
    return [by_edits[n] for n in sorted(by_edits)]
