"""One run's directory: what decides its weights names it; what decides the measurement names its results files."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afteredit.edit.method import Prepared
from afteredit.edit.request import EditRequest
from afteredit.evaluate.retention import RETAINED, measurable, of_one_scoring, retained_mean
from afteredit.record.collapse import collapses
from afteredit.record.environment import Environment
from afteredit.record.immediate_success import ImmediateSuccess, samples_between
from afteredit.record.journal import Journal, request_of
from afteredit.record.older_versions import name_older_runs
from afteredit.record.results import Results
from afteredit.record.settings import OnCollapse, RecordSettings, Resume
from afteredit.store.atomic_files import make_folder
from afteredit.store.checked_lines import read_checked, refuse_strange_files, write_checked
from afteredit.store.code_version import Version, differences, version_name
from afteredit.store.errors import NO_ROOM, BadInput
from afteredit.store.user_cache import content_hash

if TYPE_CHECKING:
    from afteredit.evaluate.measure import Checkpoint

log = logging.getLogger(__name__)
N_FIRST_FACTS = 20


def run_folder(runs: str, label: str, weights: Mapping[str, Any]) -> Path:
    """Returns the folder of the run whose weights these values decide, and makes it where it is not there yet.

    `label`: method and model, the readable part of its name.  Raises BadInput where it cannot be made.
    """
    folder = Path(runs) / f"{label}-{content_hash(weights)[:8]}"
    try:
        if not folder.is_dir():
            name_older_runs(folder, label)
        make_folder(folder)
    except OSError as problem:
        raise BadInput(f"runs={runs}: the run directory cannot be made there: {problem}"
                       f"{'; make room' if problem.errno in NO_ROOM else ''}") from None  # fmt: skip
    return folder


class RunDirectory:
    """The files of a run under one evaluation, held by one process; a context manager.

    `chance` holds the chance level of each ability that is measured; `evaluator` is the code that measures, by name.
    """

    def __init__(self, folder: Path, settings: RecordSettings, measurement: Mapping[str, Any], measuring: Version,
                 *, single: bool, read_only: bool = False):  # fmt: skip
        """Opens the files.  Raises BadInput where they cannot be used.

        `measurement`: what decides the numbers measured, with the tasks under `tasks`.  `measuring`: the version of the
        code that measures them.  `single`: every batch edits the unedited model.  `read_only`: no edit is added or set
        aside, only rows are added.
        """
        self.folder, self.settings, self.measurement, self.single = folder, settings, measurement, single
        self.chance: dict[str, float] = {name: task["chance"] for name, task in measurement["tasks"].items()}
        self.measuring, self.evaluator = measuring, version_name(measuring)
        self.environment = Environment(folder)
        digest = content_hash(measurement)[:8]
        with self.in_use():
            refuse_strange_files(folder)
            reading = {"fall_back": settings.resume is Resume.whole and not read_only, "read_only": read_only}
            self.journal = Journal(folder, **reading)
            try:
                self.results = Results(folder, digest, **reading)
                self.immediate = ImmediateSuccess(folder, digest, **reading)
            except BaseException:
                self.journal.close()
                raise

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.journal.close()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Turns an error of reading or writing in the directory into a BadInput that says so in one line."""
        try:
            yield
        except OSError as problem:
            remedy = "make room" if problem.errno in NO_ROOM else "make all of it readable and writable"
            raise BadInput(f"{self.folder} cannot be used ({problem.strerror}: {problem.filename}); {remedy}, or "
                           "change runs=<folder> to start over") from None  # fmt: skip

    def is_finished(self, batches: Sequence[Sequence[EditRequest]]) -> bool:
        """Tells whether all of `batches` are written and measured.

        Raises BadInput where the journal holds other edits than `batches` begins with, or where missing rows would
        stand beside rows that another evaluator measured.
        """
        self.journal.refuse_other_edits(batches)
        sizes = [0, *map(len, batches)]
        borders = list(accumulate(sizes))
        end = borders[-1]
        if self.collapsed_at is not None and self.stops_at(self.collapsed_at):
            end = self.collapsed_at
        wanted = [n for n, size in zip(borders, sizes, strict=True)
                  if n == end or (n < end and self.settings.due(n, size))]  # fmt: skip
        missing = [n for n in wanted if not self.results.has(n)]
        mixed = self.other_evaluators() if missing else None
        if mixed and self.settings.resume is not Resume.force:
            raise BadInput(f"{mixed}; move that file away to measure every checkpoint again (all edits are kept), or "
                           "add resume=force to go on in it: every row names its evaluator")  # fmt: skip
        if mixed:
            log.warning("%s; every row names its evaluator", mixed)
        return self.journal.n_edits >= end and not missing

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
            write_checked(path, {"requests": [asdict(request) for request in first]})
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
        before = self._checkpoint_before(n_edits)
        measured = measured.with_immediate(self._immediate_samples(before, n_edits))
        row: dict[str, Any] = dict(n_edits=n_edits, weights_sha256=sha256, evaluator=self.evaluator, **measured.row)
        if n_edits == 0:
            row |= {"chance": self.chance, "measurable": measurable(measured.samples, self.chance)}
        unedited = self.results.row(0) if self.results.has(0) else row
        names = of_one_scoring(unedited.get("measurable", []), self.chance)
        retained = retained_mean(row, unedited, names, self.chance)
        if retained is not None:
            row[f"ability/{RETAINED}"] = retained
        met = collapses(self.journal.records, [unedited, row], self.settings.collapse_perplexity)
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
        from afteredit.evaluate.measure import Checkpoint

        for row in self.results.rows:
            before = self._checkpoint_before(row["n_edits"])
            n_since = row["n_edits"] - before
            if row.get("editing/immediate/n_edits", n_since) != n_since:
                immediate = self._immediate_samples(before, row["n_edits"])
                if len({sample["request"] for sample in immediate}) == n_since:  # else some are still to be measured
                    others = {key: value for key, value in row.items() if not key.startswith("editing/immediate/")}
                    samples = [s for s in self.results.samples(row["n_edits"]) if s["kind"] != "immediate"]
                    now = Checkpoint(others, samples).with_immediate(immediate)
                    self.results.replace(now.row, [{"n_edits": row["n_edits"], **sample} for sample in now.samples])

    def _checkpoint_before(self, n_edits: int) -> int:
        """Returns the number of edits at the last checkpoint before so many, whether it is stored or still due."""
        borders = {row["n_edits"] for row in self.results.rows}
        borders |= {edit["n_edits"] for edit in self.journal.records
                    if self.settings.due(edit["n_edits"], len(edit["requests"]))}  # fmt: skip
        return max((n for n in borders if n < n_edits), default=0)

    def _immediate_samples(self, above: int, up_to: int) -> list[dict[str, Any]]:
        """Returns the immediate success of the edits above one number and up to another, whoever measured it.

        Where this evaluation has no row, one of another evaluation of the same weights (the same view) stands in, since
        it does not depend on the abilities.
        """
        evaluations, view = self.environment["evaluations"], self.measurement["view"]
        others = [digest for digest, decided in evaluations.items() if decided["view"] == view]
        files = [self.immediate, *(ImmediateSuccess(self.folder, digest, read_only=True) for digest in others)]
        return samples_between(files, self.journal.records, above, up_to)

    def refuse_other_model(self, sha256: str, source: str) -> None:
        """Raises BadInput where the row at 0 edits was measured on other matrices than those with this SHA-256."""
        stored = self.results.row(0)["weights_sha256"] if self.results.has(0) else sha256
        if stored != sha256:
            raise BadInput(f"model.source={source} is not the model that {self.folder} edited: unedited, "
                           f"its matrices are {sha256[:16]} here and were {stored[:16]}; give the same weights, or "
                           "change runs=<folder> to start over")  # fmt: skip
