"""A run's model after any number of its edits, rebuilt from the unedited one and the journal, and measured.

The same additions in the same order as the run's own (`Editor.apply`): the same bits on the same hardware and
versions; elsewhere the checksum of the edited matrices, held against every stored row's, says that they differ.  What
made the updates (second moments, context prefixes, the method) is not needed again, nor is the edit set: its facts are
in the journal.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from afteredit.edit.editor import Editor
from afteredit.evaluate.abilities.build import build_tasks
from afteredit.evaluate.inference.held_out import held_out
from afteredit.evaluate.measure import Measure
from afteredit.launch.endings import Interruption
from afteredit.launch.experiment import Experiment
from afteredit.record.journal import request_of
from afteredit.record.run_directory import RunDirectory
from afteredit.store.checked_lines import Lines
from afteredit.store.errors import BadInput

if TYPE_CHECKING:
    from rich.console import Console

    from afteredit.model.lm import LM


class Past:
    """The run's model at any of its `borders`: the numbers of edits between batches.  `visited`: those looked at."""

    def __init__(
        self, x: Experiment, run: RunDirectory, load: Callable[[], LM], console: Console, interruption: Interruption
    ):
        self.x, self.run, self.load, self.console, self.interruption = x, run, load, console, interruption
        self.records = run.journal.records
        self.batches = [[request_of(stored) for stored in record["requests"]] for record in self.records]
        self.borders = [0, *(int(record["n_edits"]) for record in self.records)]
        self.visited: set[int] = set()
        self._applied = 0  # batches that the model holds now

    @cached_property
    def lm(self) -> LM:
        """Loaded when first needed.  Raises BadInput where it is not the model that the run edited."""
        lm = self.load()
        lm.weights.keep_base(self.x.method.edited(lm))
        stored, sha256 = self._stored_sha256(0), lm.weights.sha256()
        if stored and sha256 not in stored:
            raise BadInput(f"model.source={self.x.model.source} is not the model that {self.run.folder} edited: before "
                           f"any edit the edited matrices are {sha256[:16]} here and were {stored[0][:16]} there; give "
                           "model.source=<the same weights>")  # fmt: skip
        return lm

    @cached_property
    def _measure(self) -> Measure:
        self.console.log("preparing the abilities")
        settings = self.x.settings
        parts = build_tasks(self.x.tasks, settings), held_out(self.lm, settings), self.run.first_facts, settings.seed
        return Measure(self.lm, *parts, view=self.x.constraint.view, cache_gib=self.x.speed.cache_gib, shared=True,
                       progress=lambda _what: self.interruption.check())  # fmt: skip

    def check_border(self, n_edits: int) -> None:
        """Raises BadInput where no batch ends after so many edits."""
        last = self.borders[-1]
        if not 0 <= n_edits <= last:
            raise BadInput(f"replay.at={n_edits}, but {self.run.folder} holds {last} edits; allowed: 0 to {last}")
        if n_edits not in self.borders:
            below = max(n for n in self.borders if n < n_edits)
            above = min(n for n in self.borders if n > n_edits)
            raise BadInput(f"replay.at={n_edits} lies inside a batch, which is written as a whole; allowed near it: "
                           f"{below} and {above}")  # fmt: skip

    def rebuild(self, n_edits: int) -> LM:
        """The model after so many edits; says whether it is the run's to the bit.  Raises Interrupted."""
        lm, target = self.lm, self.borders.index(n_edits)
        editor = Editor(lm, self.x.method, self.x.constraint)
        single = self.x.settings.single
        if single or target < self._applied:
            lm.weights.restore()
            self._applied = max(0, target - 1) if single else 0
        for index in range(self._applied, target):
            self.interruption.check()
            editor.apply(self.batches[index], self.run.journal.update(index, self.batches[index]))
            self._applied = index + 1
        self._say_whether_identical(n_edits, lm.weights.sha256())
        return lm

    def row(self, n_edits: int) -> dict[str, Any]:
        """The row of results after so many edits, measured and stored where it is not there yet; the one at 0 edits is
        measured before any other, since what is retained is a share of it.  Raises Interrupted."""
        for n in (0, n_edits):
            if not self.run.results.has(n):
                self._add_row(n)
        self.visited.add(n_edits)
        return self.run.results.row(n_edits)

    def _add_row(self, n_edits: int) -> None:
        """As the run itself would.  `editing/immediate` was measured by the run, right after each edit: it is that of
        the edits since the last multiple of its `eval_every`, as in the run's own rows."""
        lm, settings, end = self.rebuild(n_edits), self.x.settings, self.borders.index(n_edits)
        done = [request for batch in self.batches[:end] for request in batch]
        carried = list(self.batches[end - 1]) if end and settings.single else done
        checkpoint = (n_edits - 1) // settings.eval_every * settings.eval_every
        recent = [probe for record in self.records[:end] if record["n_edits"] > checkpoint
                  for probe in record["immediate"]]  # fmt: skip
        last = end > 0 and (n_edits == settings.n_edits or self.run.stops_at(n_edits))
        measure, mixed = self._measure, self.run.mixed()
        if mixed:
            self.console.log(f"[bold]{mixed}[/bold]; every row names its evaluator", highlight=False)
        self.console.log(f"measuring after {n_edits} edits …", highlight=False)
        measured = measure.checkpoint(carried, last=last).with_immediate(recent)
        row = measured.row
        self.run.add_checkpoint(n_edits, row, measured.samples, lm.weights.sha256())
        scores = [f"{name} {row[f'ability/{name}']:.2f}" for name in self.run.abilities]
        scores.append(f"perplexity {row['drift/perplexity']:.1f}")
        self.console.log(f"[bold]after {n_edits} edits[/bold]: {', '.join(scores)}  {row['time/eval_s']:.0f} s",
                         highlight=False)  # fmt: skip

    def _stored_sha256(self, n_edits: int) -> list[str]:
        """Of every row after so many edits, in any results file of the run."""
        files = sorted(self.run.folder.glob("results-*.jsonl"))
        return [row["weights_sha256"] for path in files for row in Lines(path).records if row["n_edits"] == n_edits]

    def _say_whether_identical(self, n_edits: int, sha256: str) -> None:
        stored = self._stored_sha256(n_edits)
        place = f"after {n_edits} edits: weights {sha256[:16]}"
        if not stored:
            self.console.log(f"{place}, with no stored row to compare them to", highlight=False)
        elif set(stored) == {sha256}:
            self.console.log(f"{place}, identical to the run's", highlight=False)
        else:
            self.console.log(f"[bold]{place}, not identical to the run's[/bold]: {stored.count(sha256)} of "
                             f"{len(stored)} stored rows have the same; hardware or versions differ from those in "
                             "environment.json", highlight=False)  # fmt: skip
