"""Results: one row per checkpoint, which is the source of truth, and a file with every example: its score and what the
model said.  A text stands once in `samples/texts.jsonl`, and the files of all checkpoints refer to it."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from afteredit.store.atomic_files import make_folder, write_atomically
from afteredit.store.checked_lines import Lines
from afteredit.store.errors import BadInput
from afteredit.store.line_shapes import fault_of_row
from afteredit.store.plain_json import printable
from afteredit.store.rows.stand_ins import refuse_stand_in
from afteredit.store.shared_texts import COLUMNS, FILE, SharedTexts, reference

NAME = re.compile(r"results(-\w+)?\.jsonl")  # a copy that is kept elsewhere may be called results.jsonl


def results_files(folder: Path) -> list[Path]:
    """Returns the results files of a run directory, by name; what is called otherwise, as a sync client's copy is, is
    none of the run's."""
    return sorted(path for path in folder.glob("results*.jsonl") if NAME.fullmatch(path.name))


class Results:
    """Holds `results-<digest>.jsonl` and `samples/<digest>-<n_edits>.parquet` of one evaluation."""

    def __init__(self, folder: Path, digest: str, *, fall_back: bool = False, read_only: bool = False):
        """Raises BadInput where a row or its samples do not match their checksums.

        With `fall_back` a row that does not is set aside together with those after it.
        """
        self.digest, self.path = digest, folder / f"results-{digest}.jsonl"
        self._lines = Lines(self.path, fall_back=fall_back, read_only=read_only)
        self._samples = folder / "samples"
        make_folder(self._samples)
        self._texts = SharedTexts(self._samples, fall_back=fall_back, read_only=read_only)
        self._lines.refuse(fault_of_row)
        for row in self._lines.records:
            self._check_samples(row)

    @property
    def n_lines(self) -> int:
        return len(self._lines.records)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows by their number of edits: the order in which they are written, unless gaps were filled later."""
        return sorted(self._lines.records, key=lambda row: row["n_edits"])

    def has(self, n_edits: int) -> bool:
        return any(row["n_edits"] == n_edits for row in self._lines.records)

    def row(self, n_edits: int) -> dict[str, Any]:
        return next(row for row in self._lines.records if row["n_edits"] == n_edits)

    def append(self, row: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> None:
        """Writes the texts, the samples and then the row, so that every row that is there has its samples."""
        import pandas as pd

        said = [{name: printable(sample[name]) for name in COLUMNS if isinstance(sample.get(name), str)}
                for sample in samples]  # fmt: skip
        self._texts.keep(text for texts in said for text in texts.values())
        references = [{name: reference(text) for name, text in texts.items()} for texts in said]
        table = pd.DataFrame([{**sample, **texts} for sample, texts in zip(samples, references, strict=True)])
        buffer = io.BytesIO()
        table.to_parquet(buffer, index=False, compression="zstd")
        write_atomically(self.samples_path(row["n_edits"]), buffer.getvalue())
        self._lines.append({**row, "samples_sha256": hashlib.sha256(buffer.getvalue()).hexdigest()})

    def replace(self, row: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> None:
        """Writes a row and its samples in the place of those after as many edits.

        Until both are written neither is there: where the command is killed in between, they are measured again.
        """
        self._lines.remove(next(i for i, old in enumerate(self._lines.records) if old["n_edits"] == row["n_edits"]))
        self.append(row, samples)

    def samples(self, n_edits: int) -> list[dict[str, Any]]:
        """Returns the examples after so many edits, with None where `append` was given nothing."""
        import pyarrow.parquet as pq

        samples = pq.read_table(self.samples_path(n_edits)).to_pylist()
        return [{name: self._texts.texts[value] if name in COLUMNS and value else value
                 for name, value in sample.items()} for sample in samples]  # fmt: skip

    def samples_path(self, n_edits: int) -> Path:
        return self._samples / f"{self.digest}-{n_edits:06d}.parquet"

    def _check_samples(self, row: Mapping[str, Any]) -> None:
        path = self.samples_path(row["n_edits"])
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != row.get("samples_sha256"):
            refuse_stand_in(path)
            raise BadInput(f"{path} is missing or does not match the checksum in {self.path.name}; restore it, or move "
                           f"{self.path.name} away to measure every checkpoint again (all edits are kept)")  # fmt: skip
        n_lost = len(_references(path) - self._texts.texts.keys())
        if n_lost:
            raise BadInput(f"{self._samples / FILE} lacks {n_lost} texts to which {path.name} refers; restore it, or "
                           f"move {self.path.name} away to measure every checkpoint again (all edits are "
                           "kept)")  # fmt: skip


def _references(path: Path) -> set[str]:
    """Returns the references to texts in a file of examples."""
    import pyarrow.parquet as pq

    columns = [name for name in COLUMNS if name in pq.read_schema(path).names]
    return {value for values in pq.read_table(path, columns=columns).to_pydict().values() for value in values if value}
