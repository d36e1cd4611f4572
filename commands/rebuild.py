"""A run's model after any number of its edits: rebuilt from the unedited model and the journal, and measured.

The run's own editor applies the stored updates again, in the same order: the same bits on the same hardware and
versions.  Elsewhere the checksum of the edited matrices, compared with that of every stored row, tells that they
differ.  The constants that made the updates (second moments, context prefixes) and the edit set are not needed: the
facts are in the journal.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from afteredit.edit.editor import Editor
from afteredit.launch.experiment import Experiment
from afteredit.launch.opening import build_measure, load_model
from afteredit.record.results import results_files
from afteredit.record.run_directory import LEFT, RunDirectory
from afteredit.record.terminal import PlainConsole, bold, so_many_edits
from afteredit.store.checked_lines import Lines
from afteredit.store.errors import BadInput
from afteredit.store.interruption import Interruption

if TYPE_CHECKING:
    from afteredit.evaluate.measure import Checkpoint, Measure
    from afteredit.model.lm import LM


class RebuiltRun:
    """The run's model at any of its `borders`, the numbers of edits between batches.

    `visited` holds the borders at which it was measured or read from the results.
    """

    def __init__(self, x: Experiment, run: RunDirectory, console: PlainConsole, interruption: Interruption):
        self.x, self.console, self.interruption = x, console, interruption
        self.follow(run)
        self.visited: set[int] = set()
        self._applied = 0  # batches that the model holds now

    def follow(self, run: RunDirectory) -> None:
        """Takes the run as it is on the disk now; it may hold more edits than before."""
        self.run, self.batches = run, run.journal.batches
        self.borders = [0, *(int(record["n_edits"]) for record in run.journal.records)]

    @cached_property
    def lm(self) -> LM:
        """The model, loaded when first needed.  Raises BadInput where it is not the one that the run edited."""
        lm = load_model(self.x, self.console)
        differs = self.run.environment.other_model(lm.fingerprint_parts)
        if differs:
            raise BadInput(f"model.source={self.x.model.source} is not the model that {self.run.folder} edited; it "
                           f"differs in: {differs}; give model.source=<the same model>")  # fmt: skip
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
        return build_measure(self.x, self.lm, self.run.first_facts, self.x.speed, lambda _: self.interruption.check())

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

    def rebuild(self, n_edits: int) -> Editor:
        """Returns the editor of the model after so many edits, and prints whether the weights are the run's own.

        Raises Interrupted.
        """
        target, single = self.borders.index(n_edits), self.x.settings.single
        if single or target < self._applied or not self._applied:
            self.lm.weights.restore()
            self._editor = Editor(self.lm, self.x.method, self.x.constraint, single=single)
            self._applied = max(0, target - 1) if single else 0
        for index in range(self._applied, target):
            self.interruption.check()
            self._editor.begin(self.batches[index])
            self._editor.apply(self.batches[index], self.run.journal.update(index))
            self._applied = index + 1
        self._print_whether_identical(n_edits, self._editor.weights_sha256())
        return self._editor

    def row(self, n_edits: int) -> dict[str, Any]:
        """Returns the row of results after so many edits; measures and stores it where it is not there yet.

        The row at 0 edits is measured before any other, since what is retained is a share of it.  Raises Interrupted.
        """
        for n in (0, n_edits):
            if not self.run.results.has(n):
                self._add_row(n)
        self.visited.add(n_edits)
        return self.run.results.row(n_edits)

    def _add_row(self, n_edits: int) -> None:
        """Stores the row that the run itself would have stored after so many edits; it measured immediate success."""
        self.run.add_checkpoint(n_edits, *self.measured(n_edits))
        self.say(self.run.results.row(n_edits))

    def measured(self, n_edits: int) -> tuple[str, Checkpoint]:
        """Returns the SHA-256 of the edited matrices after so many edits, and what is measured on them; stores nothing.

        Raises Interrupted.
        """
        editor, settings = self.rebuild(n_edits), self.x.settings
        others = self.run.other_evaluators()
        if others:
            self.console.log(bold(others, "; every row names its evaluator"))
        self.console.log(f"measuring after {so_many_edits(n_edits)} …", highlight=False)
        last = n_edits > 0 and (n_edits == settings.n_edits or self.run.stops_at(n_edits))
        return editor.weights_sha256(), self._measure.checkpoint(editor.carried, last=last)

    def say(self, row: Mapping[str, Any]) -> None:
        """Prints the line of a row that was measured here."""
        scores = [f"{name} {row[f'ability/{name}']:.2f}" for name in self.run.chance]
        scores.append(f"perplexity {row['drift/perplexity']:.1f}")
        self.console.log(bold(f"after {row['n_edits']} edits", f": {', '.join(scores)}  {row['time/eval_s']:.0f} s"))

    def _stored_sha256(self, n_edits: int) -> list[str]:
        """Returns the checksums after so many edits: of every row in any results file of the run, and of a checkpoint
        that it left to others."""
        files = [*results_files(self.run.folder), self.run.folder / LEFT]
        rows = [row for path in files for row in Lines(path, read_only=True).records]
        return [row["weights_sha256"] for row in rows if row["n_edits"] == n_edits]

    def _print_whether_identical(self, n_edits: int, sha256: str) -> None:
        stored = self._stored_sha256(n_edits)
        place = f"after {so_many_edits(n_edits)}: weights {sha256[:16]}"
        if not stored:
            self.console.log(f"{place}, with no stored row to compare them to", highlight=False)
        elif set(stored) == {sha256}:
            self.console.log(f"{place}, identical to the run's", highlight=False)
        else:
            self.console.log(bold(f"{place}, not identical to the run's", f": {stored.count(sha256)} of {len(stored)} "
                                  "stored rows have the same; hardware or versions differ from those in "
                                  "environment.json, or somebody changed the updates"))  # fmt: skip
