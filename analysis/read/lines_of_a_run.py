"""Reads the JSON-lines files of a run directory, and names what is missing in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from afteredit.record.results import results_files
from afteredit.store.checked_lines import FaultOf, Record, of_an_older_version, read_lines
from afteredit.store.line_shapes import gap


class LinesOfARun:
    """The JSON-lines files of one run directory.

    `written`: how many lines the run wrote to each file; nothing in a copy, and in a run of an older version.  A
    sentence about each line that is damaged or missing is added to `faults`.
    """

    def __init__(self, folder: Path, written: Mapping[str, int], faults: list[str]):
        self._folder, self._written, self._faults = folder, written, faults
        self._checked = not of_an_older_version(folder)

    def results(self, evaluation: str | None, known: Mapping[str, Any]) -> list[Path]:
        """Returns the results files, or only that of `evaluation`.

        `known`: the evaluations that environment.json names; nothing where it names none.  A file of another one, or
        of another name, is none of the run's.
        """
        if evaluation is not None:
            return sorted(self._folder.glob(f"results-{evaluation}.jsonl"))
        paths = [path for path in results_files(self._folder) if not known or path.stem.partition("-")[2] in known]
        for path in sorted({*self._folder.glob("results*.jsonl")} - {*paths}):
            self._faults.append(f"{path} is no file of this run (environment.json names no evaluation of its name) and "
                                "is not counted; move it away")  # fmt: skip
        names = {path.name for path in paths}
        for name in sorted(self._written):
            if name.startswith("results-") and name not in names:
                self._faults.append(f"{self._folder / name} is missing; restore it, or measure again by the command "
                                    "that made it")  # fmt: skip
        return paths

    def read(self, path: Path, fault_of: FaultOf) -> list[Record]:
        """Returns the undamaged records of a file; none where there is no file."""
        records, damaged = read_lines(path, fault_of, required=self._checked)
        self._faults += damaged
        place, n_lines = gap(records), len({record["n_edits"] for record in records}) + len(damaged)
        written = self._written.get(path.name, 0)
        if place is not None and not damaged:
            self._faults.append(f"{path}:{place + 1} does not follow what stands before it: lines are missing or out "
                                "of order; restore the file")  # fmt: skip
        elif n_lines < written:
            self._faults.append(f"{path} holds {n_lines} of the {written} lines that the run wrote; restore it")
        return records

    def compare(self, edits: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], path: Path) -> None:
        """Names edits that were measured and are not in the journal.  A copy called results.jsonl may have none."""
        journal, named = self._folder / "edits.jsonl", any("edits.jsonl" in fault for fault in self._faults)
        n_edits, measured = (edits[-1]["n_edits"] if edits else 0), rows[-1]["n_edits"]
        if n_edits < measured and not named and path.name != "results.jsonl":
            self._faults.append(f"{journal} holds {n_edits} edits, but {path.name} measured {measured}; restore it")
