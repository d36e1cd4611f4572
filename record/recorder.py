"""Recorder: where a number goes.  The files of the run come first, then W&B, then the terminal."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afteredit.evaluate.metrics.editing_success import means
from afteredit.record.display.run_display import Display
from afteredit.record.environment import commit, fingerprint
from afteredit.record.run_directory import LEFT, RunDirectory
from afteredit.record.settings import Mode, TrackerSettings
from afteredit.record.terminal import bold, so_many_edits
from afteredit.record.tracking.tracker import Tracker, checkpoint_step, edit_step
from afteredit.store.atomic_files import write_atomically
from afteredit.store.checked_lines import Lines
from afteredit.store.errors import Interrupted

if TYPE_CHECKING:
    from afteredit.evaluate.measure import Checkpoint, Immediate

log = logging.getLogger(__name__)


class Recorder:
    """Records a run as it goes on, and answers what has been recorded already.

    W&B and the terminal get every row of the run's files in order of `n_edits`: before a new row is passed on, those
    stored before it are, so that a resumed run is whole there.
    """

    def __init__(self, run: RunDirectory, display: Display, check: Callable[[], None]):
        """`check` is called wherever the run may stop without loss, and raises Interrupted where it is to stop."""
        self.display = display
        self._run, self._check = run, check
        self._tracker = Tracker(TrackerSettings(Mode.disabled), run.folder, "", {}, "")  # until `tracked`
        self._border = 0  # how many batches were passed on to W&B and the terminal
        self._passed_step = -1
        self.n_pending = 0  # how many checkpoints this command left to other processes

    def keep_command(self, config_yaml: bytes, command: str) -> None:
        """Stores the config and the command; nothing can be refused any more."""
        run = self._run
        with run.in_use():
            run.correct_immediate()  # an older version left rows that overlap
            run.environment.extend("evaluations", {run.results.digest: run.measurement})  # others may measure first
            write_atomically(run.folder / "config.yaml", config_yaml)
            run.environment.note("commands", list(dict.fromkeys([*run.environment["commands"], command])))

    @contextmanager
    def tracked(self, settings: TrackerSettings, config: Mapping[str, Any]) -> Iterator[None]:
        """Mirrors the run in W&B; who leaves its checkpoints to others leaves that to who measures the last of them.

        Inside, an interruption leaves the W&B run to be continued, or ends it where W&B's server wants that, and any
        other error marks it as failed.
        """
        run, console = self._run, self.display.console
        if not run.leaves_pending:
            self._tracker = begin_tracking(run, settings, config)
        for line in self._where_to_look()[:1]:
            console.print(line, highlight=False, soft_wrap=True)
        try:
            yield
        except Interrupted as problem:
            asked = self._tracker.asked_to_stop()
            who = "stopped by W&B" if asked else "stopped"
            console.log(bold(who, f" after {so_many_edits(run.journal.n_edits)}; all of it is kept in {run.folder}"))
            if asked:
                self._tracker.end_early()
                problem.exit_code = 0  # any other is a failure to an agent, which gives up after a few
            else:
                self._tracker.preempt()
            raise
        except BaseException:
            self._tracker.fail()
            raise

    def measuring(self, _part: str) -> None:
        """Is told that a part of a checkpoint is being measured."""
        self._check()
        self.display.measuring()

    def has_checkpoint(self, n_edits: int) -> bool:
        self._check()
        return self._run.results.has(n_edits)

    def compare_weights(self, n_edits: int, sha256: str) -> None:
        """Warns where the weights rebuilt from the journal are not those that the stored row was measured on."""
        stored = self._run.results.row(n_edits)["weights_sha256"]
        if stored != sha256:
            log.warning("after %d edits the weights are %s here and were %s when measured: hardware, threads "
                        "or versions differ from environment.json", n_edits, sha256[:16], stored[:16])  # fmt: skip
        self._end_checkpoint(n_edits)

    def leaves_pending(self, n_edits: int, sha256: str) -> bool:
        """Tells whether the checkpoint is left to other processes; if so, stores the weights' SHA-256 for them."""
        if not self._run.leaves_pending:
            return False
        lines, left = Lines(self._run.folder / LEFT), {"n_edits": n_edits, "weights_sha256": sha256}
        if left not in lines.records:
            lines.append(left)
        self.n_pending += 1
        self.display.left_pending(n_edits)
        self._end_checkpoint(n_edits)
        return True

    def checkpoint(self, n_edits: int, sha256: str, measured: Checkpoint) -> None:
        """Stores a checkpoint, with the means of the immediate success of the edits since the last one."""
        self._run.add_checkpoint(n_edits, sha256, measured)
        self._end_checkpoint(n_edits)

    def _end_checkpoint(self, n_edits: int) -> None:
        self._pass_on(checkpoint_step(n_edits))
        self._alert_of_collapse()
        self._begin_edit(n_edits)

    def has_edit(self, index: int) -> bool:
        """Tells whether the immediate success of the batch with that index is stored under this evaluation.

        A run does not stop here: what was just written is measured first.
        """
        return self._run.immediate.has(index)

    def edit(self, index: int, measured: Immediate) -> None:
        """Stores the immediate success of a batch whose update is in the journal."""
        self._run.immediate.append(index, self._run.journal.records[index]["n_edits"], measured)

    def stops(self, n_edits: int) -> bool:
        """Tells whether no more is to be written, since the model has collapsed and on_collapse=stop."""
        self._pass_on(edit_step(n_edits))
        self._begin_edit(n_edits)
        return self._run.stops_at(n_edits)

    def finish(self, summary: Mapping[str, float], tables: Sequence[Any], picture: Path, said: Any) -> None:
        """Ends a whole run: W&B gets what the files hold beyond this command's edits, the summary and what was `said`.

        The terminal gets the tables, and is told where the picture, the results and the tracked run are.
        """
        self._pass_on(math.inf, show=False)
        run, records = self._run, self._run.journal.records
        if run.collapsed_at is not None:
            where = f" at {so_many_edits(run.collapsed_at)}: {run.collapsed[run.collapsed_at]}"
            self.display.console.print(bold("collapsed", where, style="bold red"), soft_wrap=True)
        self._alert_of_collapse()
        left = summary.get("summary/retained/left")
        self._alert(f"the run has ended after {so_many_edits(run.journal.n_edits)}",
                    "" if left is None else f"{left:.0%} of the abilities are retained")  # fmt: skip
        records = [{**record, **run.immediate.row(i)} for i, record in enumerate(records)]
        self._tracker.finish(summary, records, said)
        self.display.console.print(*tables)
        for line in (f"curves   {picture}", f"results  {run.results.path}", *self._where_to_look()):
            self.display.console.print(line, highlight=False, soft_wrap=True)

    def _alert_of_collapse(self) -> None:
        n_edits = self._run.collapsed_at
        if n_edits is not None:
            self._alert(f"the model collapsed at {so_many_edits(n_edits)}", self._run.collapsed[n_edits], warning=True)

    def _alert(self, title: str, text: str, *, warning: bool = False) -> None:
        """Sends an alert, unless an earlier start of the run under this evaluation has sent it."""
        key, sent = f"{self._run.results.digest}: {title}", self._run.environment["alerts"]
        if key not in sent and self._tracker.alert(title, text, warning=warning):
            self._run.environment.note("alerts", [*sent, key])

    def _where_to_look(self) -> list[str]:
        """Returns the lines that say where the run is seen in W&B, or how it is sent there."""
        ids = self._tracker.ids
        if not ids:
            return []
        if not ids["url"]:
            return [f"look     wandb leet {ids['folder']}", f"upload   wandb sync {ids['folder']}"]
        again = [f"upload   wandb sync --include-online {ids['folder']}",
                 "         that sends every number; the same command again sends files and table too"]  # fmt: skip
        return [f"W&B      {ids['url']}", *([] if self._tracker.delivered else again)]

    def _begin_edit(self, n_edits: int) -> None:
        self._check()
        self.display.next_edit(n_edits, stored=n_edits < self._run.journal.n_edits)
        self._run.journal.stopwatch.restart()

    def _pass_on(self, step: float, show: bool = True) -> None:
        """Gives W&B and the terminal all stored rows up to this step that they do not have yet."""
        records = self._run.journal.records
        while self._border <= len(records):
            n_edits = records[self._border - 1]["n_edits"] if self._border else 0
            if self._border and self._is_due(edit_step(n_edits), step):
                self._pass_on_edit(self._border - 1, show)
            if self._run.results.has(n_edits) and self._is_due(checkpoint_step(n_edits), step):
                row = self._run.results.row(n_edits)
                self._tracker.checkpoint(row)
                if show:
                    self.display.measured(row)
            if checkpoint_step(n_edits) > step:
                return  # the checkpoint after these edits may still come
            self._border += 1

    def _is_due(self, step: int, up_to: float) -> bool:
        due = self._passed_step < step <= up_to
        if due:
            self._passed_step = step
        return due

    def _pass_on_edit(self, index: int, show: bool) -> None:
        record = self._run.journal.records[index]
        measured = self._run.immediate.row(index)
        success = means(measured.get("immediate", []), "edit/immediate")
        self._tracker.edit(record, success)
        if show:
            self.display.edited(record, success, record["edit_s"] + measured.get("immediate_s", 0.0))


def begin_tracking(run: RunDirectory, settings: TrackerSettings, config: Mapping[str, Any]) -> Tracker:
    """Begins the W&B run of a run directory under one evaluation, and stores its id there."""
    edited = run.journal.n_edits
    measured = max((row["n_edits"] for row in run.results.rows if row["n_edits"] <= edited), default=-1)
    run_id = f"{run.folder.name}-{run.results.digest}"
    kept = {key: run.environment[key] for key in ("weights", "facts")}
    config = {**config, "run": run.folder.name, "commit": commit(), "evaluation": run.results.digest,
              "fingerprint": fingerprint(run.environment["model"]), **kept}  # fmt: skip
    tracker = Tracker(settings, run.folder, run_id, config, commit(), edited, measured)
    ids, stored = {**tracker.ids, "results": run.results.digest}, run.environment["wandb"]
    if tracker.ids and ids not in stored:
        run.environment.note("wandb", [*stored, ids])
    return tracker
