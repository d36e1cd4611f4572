"""Results: one row per checkpoint, the source of truth, and the scores of every example beside it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from afteredit.edit.journal import Lines, write_atomically


class Results:
    """`results-<digest>.jsonl` and `samples/<digest>-<n_edits>.parquet` of one evaluation configuration."""

    def __init__(self, folder: Path, digest: str):
        self.digest, self.path = digest, folder / f"results-{digest}.jsonl"
        self._lines = Lines(self.path)
        self._samples = folder / "samples"
        self._samples.mkdir(exist_ok=True)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """By the number of edits, which is also the order they are written in unless gaps were filled later."""
        return sorted(self._lines.records, key=lambda row: row["n_edits"])

    def has(self, n_edits: int) -> bool:
        return any(row["n_edits"] == n_edits for row in self._lines.records)

    def row(self, n_edits: int) -> dict[str, Any]:
        return next(row for row in self._lines.records if row["n_edits"] == n_edits)

    def append(self, row: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> None:
        """Samples first: a row that is there has its samples."""
        import pandas as pd

        buffer = io.BytesIO()
        pd.DataFrame(samples).to_parquet(buffer, index=False)
        write_atomically(self.samples_path(row["n_edits"]), buffer.getvalue())
        self._lines.append(row)

    def samples_path(self, n_edits: int) -> Path:
        return self._samples / f"{self.digest}-{n_edits:06d}.parquet"
