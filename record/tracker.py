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
from typing import Any
from urllib.parse import urlparse

from afteredit.record.offline_starts import OfflineStarts
from afteredit.record.settings import Mode, TrackerSettings

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
        mode = _mode(settings.mode)
        if mode == "disabled":
            return
        attempts: dict[Any, str] = {mode: "tracked offline, sync it later", "offline": "not tracked"}
        for attempt, instead in attempts.items():
            try:
                self._run = _begun(attempt, settings, folder, run_id, config, commit)
                break
            except Exception as problem:  # noqa: BLE001  W&B raises its own, OSError, ValueError, and bare Exceptions
                log.warning("W&B %s failed (%s); this run is %s", attempt, problem or type(problem).__name__, instead)
                _forget_failed_start()
        else:
            return
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

    def edit(self, record: Mapping[str, Any], means: Mapping[str, float]) -> None:
        """Sends one batch of edits: its diagnostics, and the means of its immediate success."""
        row = {f"edit/{k}": v for k, v in record["diagnostics"].items()} | dict(means)
        self._log({"n_edits": record["n_edits"], "time/edit_s": record["edit_s"], **row}, edit_step(record["n_edits"]))

    def checkpoint(self, row: Mapping[str, Any]) -> None:
        """Sends a row of the results file; from the row at 0 edits also the lists that curves need."""
        self._log(row, checkpoint_step(row["n_edits"]))
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


def _begun(
    mode: Any, settings: TrackerSettings, folder: Path, run_id: str, config: Mapping[str, Any], commit: str
) -> Any:
    """Returns a W&B run with its x-axis set.  Raises whatever W&B raises."""
    import wandb

    # A server that takes connections and never answers costs these seconds; an upload of updates may need more.
    default = {"init_timeout": 30, "finish_timeout": 300 if settings.log_updates else 60}
    seconds: dict[str, Any] = {k: float(os.environ.get(f"WANDB_{k.upper()}", s)) for k, s in default.items()}
    log_written_every = 1.0  # seconds; with W&B's own 15 s more is lost when the process is killed
    options: dict[str, Any] = {
        "group": settings.group or os.environ.get("WANDB_RUN_GROUP") or f"{config['method']}-{config['model']}",
        "tags": settings.tags or None, "dir": str(folder), "name": folder.name, "config": dict(config),
        "reinit": "finish_previous",  # else a failed earlier run of this process would get the numbers
        "settings": wandb.Settings(silent=True, console="off", disable_git=True, git_commit=commit, save_code=False,
                                   finish_timeout_raises=True, **seconds,
                                   x_transaction_log_flush_interval=log_written_every),
    }  # fmt: skip
    if not os.environ.get("WANDB_SWEEP_ID"):  # an agent's run has its id, project and entity already
        options |= {"id": run_id, "project": settings.project, "entity": settings.entity}
    run = wandb.init(mode=mode, **options)
    run.define_metric("n_edits")
    run.define_metric("*", step_metric="n_edits")
    return run


def _forget_failed_start() -> None:
    """Makes W&B let go of the run's id after a start that failed."""
    try:
        import wandb

        wandb.teardown()
    except Exception as problem:  # noqa: BLE001  as above
        log.warning("W&B could not be taken down (%s)", problem or type(problem).__name__)


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


def _mode(mode: Mode) -> Any:
    """Returns W&B's name of the mode; never online without a key, since W&B would ask for one."""
    chosen = os.environ.get("WANDB_MODE") if mode is Mode.auto else mode.value
    if chosen in ("offline", "disabled"):
        return chosen
    if not _has_key():
        if chosen == "online":
            log.warning("W&B is to be online, but there is no key (wandb login, WANDB_API_KEY): tracked offline")
        return "offline"
    return "online"


def _has_key() -> bool:
    import netrc

    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
