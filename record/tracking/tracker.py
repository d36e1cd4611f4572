"""Weights & Biases: a mirror of what is already on the disk.  Losing it loses nothing; it never asks, never crashes.

Each start sends all that the run directory holds, then what is new, so that one W&B run is the whole run however often
it was stopped, and whichever agent asked for it.  A start begins the W&B run anew under its id and never uses W&B's
`resume`: `wandb sync` appends the rows of resumed offline runs to each other (offline_starts.py).
The row of an edit has step 2n, where n edits have been made with it, and the checkpoint after it has step 2n + 1;
`n_edits` is the x-axis of every curve.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

from afteredit.record.settings import TrackerSettings
from afteredit.record.tracking.lineage import inputs
from afteredit.record.tracking.offline_starts import OfflineStarts
from afteredit.record.tracking.start import begun, forget_failed_start, tracking_mode

log = logging.getLogger(__name__)


class Tracker:
    """One W&B run, online or offline, or nothing at all when disabled."""

    def __init__(self, settings: TrackerSettings, folder: Path, run_id: str, config: Mapping[str, Any], commit: str,
                 edited: int = 0, measured: int = -1):  # fmt: skip
        """`run_id`: the id to use unless a sweep's agent gives one.  `edited`: the number of edits that the run
        directory holds already.  `measured`: the number of edits at its last checkpoint, -1 where there is none."""
        self._run: Any = None
        self.delivered = False
        self._folder, self._log_updates, self._last_step = folder, settings.log_updates, -1
        self._starts: OfflineStarts | None = None
        self._chance: Mapping[str, float] = {}  # of each ability, as the row at 0 edits says it
        mode = tracking_mode(settings.mode)
        if mode == "disabled":
            return
        attempts: dict[Any, str] = {mode: "tracked offline, sync it later", "offline": "not tracked"}
        for attempt, instead in attempts.items():
            try:
                self._run = begun(attempt, settings, folder, run_id, config, commit)
                break
            except Exception as problem:  # noqa: BLE001  W&B raises its own, OSError, ValueError, and bare Exceptions
                log.warning("W&B %s failed (%s); this run is %s", attempt, problem or type(problem).__name__, instead)
                forget_failed_start()
        else:
            return
        self._inputs = Thread(target=self._use_inputs, args=(config,), daemon=True)  # W&B waits for its server
        self._inputs.start()
        with self._mirrored("could not look for earlier starts"):
            held = max(edit_step(edited), checkpoint_step(measured))
            self._starts = OfflineStarts(self._start, self._run.id, held)

    @property
    def ids(self) -> dict[str, str]:
        """What the run directory stores about this W&B run; empty where nothing is tracked."""
        if self._run is None:
            return {}
        return {"id": self._run.id, "project": self._run.project, "folder": str(self._start),
                "url": "" if self._run.offline else str(self._run.url)}  # fmt: skip

    def _use_inputs(self, config: Mapping[str, Any]) -> None:
        if not self._run.offline:  # offline W&B takes no inputs
            with self._mirrored("was not told which model and edit set the run is made of"):
                for artifact in inputs(config):
                    self._run.use_artifact(artifact)

    def alert(self, title: str, text: str, *, warning: bool = False) -> bool:
        """Sends a message to those who want W&B's alerts; tells whether it was sent."""
        if self._run is not None:
            with self._mirrored("was not alerted"):
                self._run.alert(title, text, "WARN" if warning else "INFO")
                return True
        return False

    def edit(self, record: Mapping[str, Any], means: Mapping[str, float]) -> None:
        """Sends one batch of edits: its diagnostics, and the means of its immediate success."""
        row = {f"edit/{k}": v for k, v in record["diagnostics"].items()} | dict(means)
        self._log({"n_edits": record["n_edits"], "time/edit_s": record["edit_s"], **row}, edit_step(record["n_edits"]))

    def checkpoint(self, row: Mapping[str, Any]) -> None:
        """Sends a row of the results file; beside each ability its chance level, as a curve to stand above.

        From the row at 0 edits also the lists that curves need.
        """
        self._chance = row.get("chance", self._chance)
        chance = {f"chance/{name}": self._chance[name] for name in self._chance if f"ability/{name}" in row}
        self._log({**row, **chance}, checkpoint_step(row["n_edits"]))
        if self._run is not None and row["n_edits"] == 0:
            with self._mirrored("was not told which abilities are measurable"):
                self._run.summary.update({key: row[key] for key in ("measurable", "chance") if key in row})

    def preempt(self) -> None:
        """Says that the run was stopped from outside and will go on: a sweep may give it to another agent."""
        if self._run is None:
            return
        with self._mirrored("could not be told that the run was stopped"):
            self._run.mark_preempting()
            self._finish(exit_code=1)

    def asked_to_stop(self) -> bool:
        """Tells whether the server of a sweep wants this run to end early."""
        if self._run is not None and not self._run.offline and os.environ.get("WANDB_SWEEP_ID"):
            with self._mirrored("was not asked whether it has stopped the run"):
                from wandb.sdk.launch.api import LaunchApi

                asked = LaunchApi(timeout=10).check_stop_requested  # an agent's SIGTERM does not say who wants it
                return asked(self._run.project, self._run.entity, self._run.id)
        return False

    def end_early(self) -> None:
        """Ends a run that the server has stopped.  It gets no summary, since a shorter run is not to be compared."""
        if self._run is None:
            return
        with self._mirrored("was not given the files"):
            self._run.log_artifact(self._results())
        with self._mirrored("could not be told that the run has ended"):
            self._finish(exit_code=0)

    def fail(self) -> None:
        """Says that the run could not go on: W&B shows it as failed and gives it to no agent."""
        if self._run is None:
            return
        with self._mirrored("could not be told that the run failed"):
            self._finish(exit_code=1)

    def finish(self, summary: Mapping[str, Any], records: Sequence[Mapping[str, Any]], said: Any) -> None:
        """Ends a whole run: sends its summary, tables of the edits in `records` and of what was `said`, its files.

        `records`: those of the journal, each with the texts that were `generated` right after it.  `said`: a
        DataFrame of what was said to each question, which may be empty.
        """
        if self._run is None:
            return
        with self._mirrored("was not given the tables and the files"):
            import wandb

            self._run.summary.update(dict(summary))
            self._run.summary["edits"] = _table(records)
            if len(said):
                self._run.summary["answers"] = wandb.Table(dataframe=said)
            self._run.log_artifact(self._results())
        with self._mirrored("did not get everything"):
            self._finish(exit_code=0, whole=True)
            self.delivered = True

    def _finish(self, exit_code: int, whole: bool = False) -> None:
        self._inputs.join(timeout=5)
        try:
            self._run.finish(exit_code=exit_code)
        finally:  # what was not delivered is in this start's log
            if self._starts:
                with self._mirrored("could not mark earlier starts"):
                    self._starts.ended(self._last_step, whole)

    @property
    def _start(self) -> Path:
        """The folder of this start's log."""
        return Path(self._run.dir).parent

    def _results(self) -> Any:
        """Returns an artifact with the run's results and the journal's index, and with its updates on request."""
        import wandb

        artifact = wandb.Artifact(f"results-{self._run.id}", type="results")
        patterns = ["results-*.jsonl", "immediate-*.jsonl", "samples/*.parquet", "samples/*.jsonl", "config.yaml",
                    "edits.jsonl"]  # fmt: skip
        for pattern in [*patterns, "updates/*.safetensors"] if self._log_updates else patterns:
            for path in sorted(self._folder.glob(pattern)):
                artifact.add_file(str(path), name=str(path.relative_to(self._folder)))
        return artifact

    def _log(self, row: Mapping[str, Any], step: int) -> None:
        if self._run is None or step <= self._last_step:  # sent already
            return
        self._last_step = step
        with self._mirrored(f"did not take step {step}"):
            self._run.log({k: v for k, v in row.items() if isinstance(v, int | float)}, step=step, commit=True)
            if self._starts:
                self._starts.sent(step)

    @contextmanager
    def _mirrored(self, failed: str) -> Iterator[None]:
        """Turns every error into a warning: the results are on the disk, so a mirror must not fail the run."""
        try:
            yield
        except Exception as problem:  # noqa: BLE001
            log.warning("W&B %s (%s); all of it is in %s", failed, problem or type(problem).__name__, self._folder)


def edit_step(n_edits: int) -> int:
    """Returns the W&B step of the edit with which so many edits have been made."""
    return 2 * n_edits


def checkpoint_step(n_edits: int) -> int:
    """Returns the W&B step of the checkpoint after so many edits."""
    return 2 * n_edits + 1


def _table(records: Sequence[Mapping[str, Any]]) -> Any:
    """Returns a table of the edits: prompt, target, and the greedy text before any edit and right after this one."""
    import wandb

    table = wandb.Table(columns=["n_edits", "prompt", "target", "before", "after"])
    for record in records:
        said = record.get("generated", [])
        texts = {text["request"]: text for text in said if text.get("group", "efficacy") == "efficacy"}
        for request in record["requests"]:
            text = texts.get(request["id"], {"before": None, "after": None})
            prompt = request["prompt"].replace("{}", request["subject"])
            table.add_data(record["n_edits"], prompt, request["target_new"], text["before"], text["after"])
    return table
