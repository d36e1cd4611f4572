"""Weights & Biases: a mirror of what is already on the disk.  Losing it loses nothing; it never asks, never crashes.

Each start sends all that the run directory holds, then what is new, so that one W&B run is the whole run however often
it was stopped, and whichever agent asked for it.  It is begun anew under its id, never W&B's `resume`: of resumed
offline runs `wandb sync` puts the rows of each start behind one another (wandb 0.31), so that numbers are there twice.
Of the directories that several starts leave, `wandb sync` takes the one that holds most and passes the others by.
The row of an edit that made n edits has step 2n, the checkpoint after it 2n + 1; `n_edits` is every curve's x-axis.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from afteredit.store.errors import BadInput

log = logging.getLogger(__name__)


class Mode(Enum):
    auto = "auto"  # online when a key or server is configured, else offline
    online = "online"
    offline = "offline"
    disabled = "disabled"


@dataclass(frozen=True)
class TrackerSettings:
    mode: Mode = Mode.auto
    project: str = "afteredit"
    entity: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    log_updates: bool = False  # every edit's factors go up with the results

    def __post_init__(self) -> None:
        """What W&B refuses even offline."""
        if not 0 < len(self.project) <= 128 or set(self.project) & set("/\\#?%:"):
            raise BadInput(f"tracker.project={self.project!r}; it must have 1 to 128 characters, none of / \\ # ? % :")
        for tag in self.tags:
            if not 0 < len(tag) <= 64:
                raise BadInput(f"tracker.tags holds {tag!r}; a tag must have 1 to 64 characters")


class Tracker:
    """One W&B run, online or offline, or nothing at all when disabled."""

    def __init__(self, settings: TrackerSettings, folder: Path, run_id: str, config: Mapping[str, Any], commit: str,
                 edited: int = 0, measured: int = -1):  # fmt: skip
        """`run_id`: the one to use unless a sweep's agent gives its own.  `edited`: the edits that the run directory
        holds already; `measured`: how many of them were made at its last checkpoint, -1 where there is none."""
        self._run: Any = None
        self.delivered = False
        self._folder, self._log_updates, self._last_step = folder, settings.log_updates, -1
        self._held = max(_edit_step(edited), _checkpoint_step(measured))
        self._earlier: list[Path] = []
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
            self._earlier = self._other_starts()
            if self._earlier:  # until this one holds as much as they do
                self._mark(self._own).touch()

    @property
    def ids(self) -> dict[str, str]:
        """What the run directory records of this W&B run."""
        if self._run is None:
            return {}
        return {"id": self._run.id, "project": self._run.project, "folder": str(self._own),
                "url": "" if self._run.offline else str(self._run.url)}  # fmt: skip

    def edit(self, record: Mapping[str, Any], means: Mapping[str, float]) -> None:
        """One batch of edits: its diagnostics and immediate success."""
        row = {f"edit/{k}": v for k, v in record["diagnostics"].items()} | dict(means)
        self._log({"n_edits": record["n_edits"], "time/edit_s": record["edit_s"], **row}, _edit_step(record["n_edits"]))

    def checkpoint(self, row: Mapping[str, Any]) -> None:
        """A row of the results file; of the one at 0 edits, what curves need beside its numbers."""
        self._log(row, _checkpoint_step(row["n_edits"]))
        if self._run is not None and row["n_edits"] == 0:
            with self._mirrored("was not told which abilities are measurable"):
                self._run.summary.update({key: row[key] for key in ("measurable", "chance") if key in row})

    def preempt(self) -> None:
        """The run was stopped from outside and will go on: W&B (and a sweep) may give it to another agent."""
        if self._run is None:
            return
        with self._mirrored("could not be told that the run was stopped"):
            self._run.mark_preempting()
            self._finish(exit_code=1)

    def fail(self) -> None:
        """The run could not go on: W&B shows it as failed, and gives it to nobody."""
        if self._run is None:
            return
        with self._mirrored("could not be told that the run failed"):
            self._finish(exit_code=1)

    def finish(self, summary: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> None:
        """The end of a whole run: its summary, a table of the edits in the journal's `records`, its files."""
        if self._run is None:
            return
        with self._mirrored("was not given the table and the files"):
            self._run.summary.update(dict(summary))
            self._run.summary["edits"] = _table(records)
            self._run.log_artifact(self._results())
        self._held = self._last_step
        with self._mirrored("did not get everything"):
            self._finish(exit_code=0)
            self.delivered = True

    def _finish(self, exit_code: int) -> None:
        try:
            self._run.finish(exit_code=exit_code)
        finally:  # what was not delivered is in this start's log
            if self._last_step >= self._held:
                self._take_over()

    @property
    def _own(self) -> Path:
        """Where this start's log is."""
        return Path(self._run.dir).parent

    def _other_starts(self) -> list[Path]:
        found = self._own.parent.glob(f"*run-????????_??????-{self._run.id}")
        return [folder for folder in found if folder != self._own]

    def _mark(self, start: Path) -> Path:
        """Where this file is, `wandb sync` passes the start by."""
        return start / f"run-{self._run.id}.wandb.synced"

    def _take_over(self) -> None:
        """This start holds all that the earlier ones do: `wandb sync` is to take it in their place."""
        with self._mirrored("could not mark earlier starts"):
            self._mark(self._own).unlink(missing_ok=True)
            for earlier in self._earlier:
                self._mark(earlier).touch()
            self._earlier = []

    def _results(self) -> Any:
        """All that the run directory holds of results, and the journal's index; the updates where asked for."""
        import wandb

        artifact = wandb.Artifact(f"results-{self._run.id}", type="results")
        patterns = ["results-*.jsonl", "samples/*.parquet", "config.yaml", "edits.jsonl"]
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
            if self._earlier and step > self._held:  # not at once: W&B writes what it is given up to a second later
                self._take_over()

    @contextmanager
    def _mirrored(self, failed: str) -> Iterator[None]:
        """Nothing that goes wrong in a mirror may fail the run: the results are on the disk."""
        try:
            yield
        except Exception as problem:  # noqa: BLE001
            log.warning("W&B %s (%s); all of it is in %s", failed, problem or type(problem).__name__, self._folder)


def _begun(
    mode: Any, settings: TrackerSettings, folder: Path, run_id: str, config: Mapping[str, Any], commit: str
) -> Any:
    """A W&B run with its axis.  Raises whatever W&B does."""
    import wandb

    default = {"init_timeout": 30, "finish_timeout": 300}
    seconds: dict[str, Any] = {k: float(os.environ.get(f"WANDB_{k.upper()}", s)) for k, s in default.items()}
    log_written_every = 1.0  # s; W&B's own 15 s are lost where the process is killed
    options: dict[str, Any] = {
        "group": settings.group or os.environ.get("WANDB_RUN_GROUP") or f"{config['method']}-{config['model']}",
        "tags": settings.tags or None, "dir": str(folder), "name": folder.name, "config": dict(config),
        "reinit": "finish_previous",  # else what failed before this in one process would get this run's numbers
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
    """It still holds the run's id."""
    try:
        import wandb

        wandb.teardown()
    except Exception as problem:  # noqa: BLE001  as above
        log.warning("W&B could not be taken down (%s)", problem or type(problem).__name__)


def _edit_step(n_edits: int) -> int:
    return 2 * n_edits


def _checkpoint_step(n_edits: int) -> int:
    return 2 * n_edits + 1


def _table(records: Sequence[Mapping[str, Any]]) -> Any:
    """One row per edit: what it asks, what it wants, what the unedited model says, what the model says right after."""
    import wandb

    table = wandb.Table(columns=["n_edits", "prompt", "target", "before", "after"])
    for record in records:
        said = {text["request"]: text for text in record.get("generated", [])}
        for request in record["requests"]:
            text = said.get(request["id"], {"before": None, "after": None})
            prompt = request["prompt"].replace("{}", request["subject"])
            table.add_data(record["n_edits"], prompt, request["target_new"], text["before"], text["after"])
    return table


def _mode(asked: Mode) -> Any:
    """Never online without a key: W&B would ask for one."""
    chosen = os.environ.get("WANDB_MODE") if asked is Mode.auto else asked.value
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
