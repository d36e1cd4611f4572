"""One run's directory: what decides its weights names it; what decides the measurement names its results files."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afteredit.edit.method import Prepared
from afteredit.edit.request import EditRequest
from afteredit.evaluate.retention import RETAINED, measurable, of_one_scoring, retained_mean
from afteredit.record.collapse import collapses
from afteredit.record.environment import Environment
from afteredit.record.immediate_success import ImmediateSuccess, WithStandIns, corrected
from afteredit.record.journal import Journal, request_of
from afteredit.record.results import Results
from afteredit.record.settings import OnCollapse, RecordSettings, Resume, When
from afteredit.store.checked_lines import read_checked, refuse_strange_files, write_checked
from afteredit.store.code_version import Version, differences, version_name
from afteredit.store.errors import NO_ROOM, BadInput
from afteredit.store.locks.of_a_run import leave_to_others, refuse_measuring, results_held
from afteredit.store.user_cache import content_hash

if TYPE_CHECKING:
    from afteredit.evaluate.measure import Checkpoint

log = logging.getLogger(__name__)
N_FIRST_FACTS = 20
LEFT = "checkpoints.jsonl"  # the SHA-256 of the weights at each checkpoint that was left to other processes


class RunDirectory:
    """The files of a run under one evaluation, held by one process; a context manager.

    `chance` holds the chance level of each ability that is measured; `evaluator` is the code that measures, by name.
    """

    def __init__(self, folder: Path, settings: RecordSettings, measurement: Mapping[str, Any], measuring: Version,
                 *, single: bool, read_only: bool = False, shared: bool = False):  # fmt: skip
        """Opens the files.  Raises BadInput where they cannot be used.

        `measurement`: what decides the numbers measured, with the tasks under `tasks`.  `measuring`: the version of the
        code that measures them.  `single`: every batch edits the unedited model.  `read_only`: no edit is added or set
        aside, only rows are added.  `shared`: other processes edit and measure the run meanwhile.
        """
        self.folder, self.settings, self.measurement, self.single = folder, settings, measurement, single
        self.leaves_pending = settings.measure is When.later and not read_only
        self.chance: dict[str, float] = {name: task["chance"] for name, task in measurement["tasks"].items()}
        self.measuring, self.evaluator = measuring, version_name(measuring)
        self.environment = Environment(folder)
        digest = content_hash(measurement)[:8]
        with self.in_use():
            refuse_strange_files(folder)
            reading = {"fall_back": settings.resume is Resume.whole and not read_only, "read_only": read_only}
            self.journal = Journal(folder, **reading, shared=shared)
            self._lease = leave_to_others(folder) if self.leaves_pending else None
            try:
                self.results = Results(folder, digest, **reading)
                self.immediate = ImmediateSuccess(folder, digest, **reading)
                if not (shared or self.leaves_pending):
                    refuse_measuring(folder)
            except BaseException:
                self.close()
                raise

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets other processes use the run."""
        if self._lease is not None:
            self._lease.release()
        self.journal.close()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Turns an error of reading or writing in the directory into a BadInput that says so in one line; where others
        measure the run, keeps them from writing meanwhile."""
        try:
            with results_held(self.folder) if self.leaves_pending else nullcontext():
                yield
        except OSError as problem:
            remedy = "make room" if problem.errno in NO_ROOM else "make all of it readable and writable, copy it"
            raise BadInput(f"{self.folder} cannot be used ({problem.strerror}: {problem.filename}); {remedy}, or "
                           "change runs=<folder> to start over") from None  # fmt: skip

    def is_finished(self, batches: Sequence[Sequence[EditRequest]]) -> bool:
        """Tells whether all of `batches` are written and measured.

        Raises BadInput where the journal holds other edits than `batches` begins with, or where missing rows would
        stand beside rows that another evaluator measured.
        """
        self.journal.refuse_other_edits(batches)
        missing = self.missing(batches)
        mixed = self.other_evaluators() if missing else None
        if mixed and self.settings.resume is not Resume.force:
            raise BadInput(f"{mixed}; move that file away to measure every checkpoint again (all edits are kept), or "
                           "add resume=force to go on in it: every row names its evaluator")  # fmt: skip
        if mixed:
            log.warning("%s; every row names its evaluator", mixed)
        return self.journal.n_edits >= self.end and not missing

    @property
    def end(self) -> int:
        """The number of edits with which the run is whole."""
        at = self.collapsed_at
        return at if at is not None and self.stops_at(at) else self.settings.n_edits

    def missing(self, batches: Sequence[Sequence[EditRequest]]) -> list[int]:
        """Returns after how many of the edits of `batches` a checkpoint is due that has no row."""
        sizes = [0, *map(len, batches)]
        due = [n for n, size in zip(accumulate(sizes), sizes, strict=True)
               if n == self.end or (n < self.end and self.settings.due(n, size))]  # fmt: skip
        return [n for n in due if not self.results.has(n)]

    def ready(self) -> list[int]:
        """Returns those of the missing checkpoints that can be measured: the success of all edits before them is."""
        lacking = self._all_immediate().is_lacking(self.journal.records)
        return [n for n in self.missing(self.journal.batches) if n < min(lacking, default=n + 1)]

    def other_evaluators(self) -> str | None:
        """Returns a sentence about the rows that other code or versions measured; None where there are none."""
        others = {row["n_edits"]: row["evaluator"] for row in self.results.rows if row["evaluator"] != self.evaluator}
        if not others:
            return None
        known = self.environment["evaluators"]
        changed = sorted({differences(known.get(name, {}), self.measuring) for name in others.values()})
        return (f"{self.results.path} holds rows (n_edits {', '.join(map(str, others))}) that another evaluator "
                f"measured; changed since: {'; '.join(changed)}")  # fmt: skip

    @property
    def collapsed(self) -> dict[int, str]:
        """The numbers of edits, up to `n_edits`, after which the model had collapsed, each with the condition met."""
        met = collapses(self.journal.records, self.results.rows, self.settings.collapse_perplexity)
        return {n: condition for n, condition in met.items() if n <= self.settings.n_edits}

    @property
    def collapsed_at(self) -> int | None:
        """The first of them.  None in setting=single, where no edit is made on a collapsed model."""
        return None if self.single else min(self.collapsed, default=None)

    def stops_at(self, n_edits: int) -> bool:
        """Tells whether nothing is to be written after so many edits, since the model has collapsed and
        on_collapse=stop.  Never in setting=single."""
        stop = self.settings.on_collapse is OnCollapse.stop
        return stop and self.collapsed_at is not None and n_edits >= self.collapsed_at

    def with_contexts(self, prepared: Prepared) -> Prepared:
        """Returns `prepared` with the run's own context prefixes; stores them at the first start.

        Raises BadInput where the run was begun with other constants.
        """
        path = self.folder / "prefixes.json"
        if self.journal.n_batches:
            stored = read_checked(path)
            if stored["constants"] != dict(prepared.hashes):
                raise BadInput(
                    f"{self.folder} was begun with constants {stored['constants']}, the config now gives "
                    f"{dict(prepared.hashes)} (another text for the second moment?); restore it, or change "
                    "runs=<folder> to start over"
                )
            return dataclasses.replace(prepared, contexts=tuple(stored["contexts"]))
        write_checked(path, {"contexts": list(prepared.contexts), "constants": dict(prepared.hashes)})
        return prepared

    def keep_first_facts(self, requests: Sequence[EditRequest]) -> None:
        """Stores the facts that the unedited model is measured on: the first of all `requests`.

        They do not depend on how many of them are edits of this run, so that neither more edits nor a replay changes
        the row at 0 edits.  Raises BadInput where others are stored.
        """
        path, first = self.folder / "first_facts.json", list(requests[:N_FIRST_FACTS])
        if not path.exists() and not self.journal.n_batches:
            write_checked(path, {"requests": [request.content for request in first]})
        if self.first_facts != first:
            raise BadInput(f"{path} holds other facts than the edit set begins with now; restore the edit set, or "
                           "change runs=<folder> to start over")  # fmt: skip

    @cached_property
    def first_facts(self) -> list[EditRequest]:
        """The facts that the unedited model is measured on.  Raises BadInput where they are damaged."""
        return [request_of(stored) for stored in read_checked(self.folder / "first_facts.json")["requests"]]

    def add_checkpoint(self, n_edits: int, sha256: str, measured: Checkpoint) -> None:
        """Stores what was measured after so many edits, on matrices with this SHA-256.

        Adds the immediate success of the edits since the row before; the row after it no longer counts these.
        """
        records, before = self.journal.records, self._checkpoint_before(n_edits)
        measured = measured.with_immediate(self._all_immediate().samples(records, before, n_edits))
        row: dict[str, Any] = dict(n_edits=n_edits, weights_sha256=sha256, evaluator=self.evaluator, **measured.row)
        if n_edits == 0:
            row |= {"chance": self.chance, "measurable": measurable(measured.samples, self.chance)}
        unedited = self.results.row(0) if self.results.has(0) else row
        names = of_one_scoring(unedited.get("measurable", []), self.chance)
        retained = retained_mean(row, unedited, names, self.chance)
        if retained is not None:
            row[f"ability/{RETAINED}"] = retained
        met = collapses(records, [unedited, row], self.settings.collapse_perplexity)
        since = [condition for n, condition in met.items() if before < n <= n_edits]
        row |= {"collapse": since[0]} if since else {}
        self.environment.extend("evaluators", {self.evaluator: self.measuring})
        self.environment.extend("evaluations", {self.results.digest: self.measurement})
        self.results.append(row, [{"n_edits": n_edits, **sample} for sample in measured.samples])
        self.correct_immediate()
        self.environment.extend("lines", {f.path.name: f.n_lines for f in (self.journal, self.results, self.immediate)})

    def correct_immediate(self) -> None:
        """Makes each row's immediate success that of the edits since the checkpoint before it, which may have been
        added after it."""
        for row in self.results.rows:
            before = self._checkpoint_before(row["n_edits"])
            n_since = row["n_edits"] - before
            if row.get("editing/immediate/n_edits", n_since) != n_since:
                immediate = self._all_immediate().samples(self.journal.records, before, row["n_edits"])
                if len({sample["request"] for sample in immediate}) == n_since:  # else some are still to be measured
                    now = corrected(row, self.results.samples(row["n_edits"]), immediate)
                    self.results.replace(now.row, [{"n_edits": row["n_edits"], **sample} for sample in now.samples])

    def _checkpoint_before(self, n_edits: int) -> int:
        """Returns the number of edits at the last checkpoint before so many, whether it is stored or still due."""
        borders = {row["n_edits"] for row in self.results.rows}
        borders |= {edit["n_edits"] for edit in self.journal.records
                    if self.settings.due(edit["n_edits"], len(edit["requests"]))}  # fmt: skip
        return max((n for n in borders if n < n_edits), default=0)

    def _all_immediate(self) -> WithStandIns:
        evaluations = self.environment["evaluations"].items()
        others = [digest for digest, decided in evaluations if decided["view"] == self.measurement["view"]]
        return WithStandIns(self.immediate, self.folder, others)

    def refuse_other_model(self, sha256: str, source: str) -> None:
        """Raises BadInput where the row at 0 edits was measured on other matrices than those with this SHA-256."""
        stored = self.results.row(0)["weights_sha256"] if self.results.has(0) else sha256
        if stored != sha256:
            raise BadInput(f"model.source={source} is not the model that {self.folder} edited: unedited, "
                           f"its matrices are {sha256[:16]} here and were {stored[:16]}; give the same weights, or "
                           "change runs=<folder> to start over")  # fmt: skip
