"""Editing success right after each update: one row per batch, under the evaluation that measured it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afteredit.store.checked_lines import Lines, Record
from afteredit.store.line_shapes import fault_of_immediate

if TYPE_CHECKING:
    from afteredit.evaluate.measure import Checkpoint, Immediate


class ImmediateSuccess:
    """`immediate-<digest>.jsonl` of one evaluation: batch, n_edits, immediate (samples), generated (texts)."""

    def __init__(self, folder: Path, digest: str, *, fall_back: bool = False, read_only: bool = False):
        """Raises BadInput where a row does not match its checksum; with `fall_back` it is set aside together
        with those after it."""
        self.path = folder / f"immediate-{digest}.jsonl"
        self._lines = Lines(self.path, fall_back=fall_back, read_only=read_only)
        self._lines.refuse(fault_of_immediate)
        self._by_batch: dict[int, Record] = {row["batch"]: row for row in self._lines.records}

    @property
    def n_lines(self) -> int:
        return len(self._lines.records)

    def has(self, batch: int) -> bool:
        return batch in self._by_batch

    def row(self, batch: int) -> Mapping[str, Any]:
        """Returns the row of a batch; an empty one where it was not measured."""
        return self._by_batch.get(batch, {})

    def append(self, batch: int, n_edits: int, measured: Immediate) -> None:
        """Stores what was measured after the batch with that index, when so many edits had been made."""
        self._lines.append({"batch": batch, "n_edits": n_edits, "immediate": measured.samples,
                            "generated": measured.texts, "immediate_s": measured.seconds})  # fmt: skip
        self._by_batch[batch] = self._lines.records[-1]


class WithStandIns:
    """The immediate success under one evaluation; where it has no row, one of another evaluation of the same weights
    stands in, since it does not depend on the abilities.  An older version of this program kept it in the journal."""

    def __init__(self, own: ImmediateSuccess, folder: Path, others: Iterable[str]):
        """`others`: the digests of the other evaluations."""
        self._files = [own, *(ImmediateSuccess(folder, digest, read_only=True) for digest in others)]

    def samples(self, journal: Sequence[Record], above: int, up_to: int) -> list[dict[str, Any]]:
        """Returns the samples of the batches that ended above so many edits and up to so many, in order."""
        rows = [self._row(index, record) for index, record in enumerate(journal) if above < record["n_edits"] <= up_to]
        return [sample for row in rows for sample in row.get("immediate", [])]

    def is_lacking(self, journal: Sequence[Record]) -> list[int]:
        """Returns the numbers of edits of the batches whose success was not measured."""
        return [record["n_edits"] for index, record in enumerate(journal)
                if "immediate" not in self._row(index, record)]  # fmt: skip

    def _row(self, index: int, record: Record) -> Mapping[str, Any]:
        return next((file.row(index) for file in self._files if file.has(index)), record)


def corrected(row: Mapping[str, Any], samples: Sequence[Mapping[str, Any]],
              immediate: list[dict[str, Any]]) -> Checkpoint:  # fmt: skip
    """Returns a stored checkpoint with other immediate success."""
    from afteredit.evaluate.measure import Checkpoint

    others = {key: value for key, value in row.items() if not key.startswith("editing/immediate/")}
    return Checkpoint(others, [dict(s) for s in samples if s["kind"] != "immediate"]).with_immediate(immediate)
