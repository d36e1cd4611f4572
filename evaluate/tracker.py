"""Weights & Biases: a mirror of what is already on the disk.  Losing it loses nothing; it never asks, never crashes.

Every row is sent with a fixed step, so sending again is harmless: what the server has, it drops.  The row of an edit
that made n edits has step 2n, the checkpoint after it 2n + 1; `n_edits` is every curve's x-axis.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from afteredit.edit.request import BadInput

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

    def __post_init__(self) -> None:
        """What W&B refuses even offline."""
        if not 0 < len(self.project) <= 128 or set(self.project) & set("/\\#?%:"):
            raise BadInput(f"tracker.project={self.project!r}; it must have 1 to 128 characters, none of / \\ # ? % :")
        for tag in self.tags:
            if not 0 < len(tag) <= 64:
                raise BadInput(f"tracker.tags holds {tag!r}; a tag must have 1 to 64 characters")


class Tracker:
    """One W&B run, online or offline, or nothing at all when disabled."""

    def __init__(self, settings: TrackerSettings, folder: Path, run_id: str, name: str, config: Mapping[str, Any]):
        self._run: Any = None
        mode = _mode(settings.mode)
        if mode == "disabled":
            return
        import wandb

        options: dict[str, Any] = {
            "project": settings.project, "entity": settings.entity, "group": settings.group,
            "tags": settings.tags or None, "dir": str(folder), "name": name, "config": dict(config),
            "id": run_id, "resume": "allow",
            "settings": wandb.Settings(silent=True, console="off", init_timeout=30, disable_git=True, save_code=False),
        }  # fmt: skip
        attempts: dict[Any, str] = {mode: "tracked offline, sync it later", "offline": "not tracked"}
        for attempt, instead in attempts.items():
            try:
                self._run = wandb.init(mode=attempt, **options)
                break
            except (wandb.errors.Error, OSError, ValueError) as problem:  # ValueError: settings in the environment
                log.warning("W&B %s failed (%s); this run is %s", attempt, problem, instead)
                wandb.teardown()  # the failed start still holds the run's id
        else:
            return
        self._run.define_metric("n_edits")
        self._run.define_metric("*", step_metric="n_edits")

    @property
    def ids(self) -> dict[str, str]:
        """What the run directory records of this W&B run."""
        if self._run is None:
            return {}
        return {"id": self._run.id, "project": self._run.project, "folder": str(Path(self._run.dir).parent),
                "url": "" if self._run.offline else str(self._run.url)}  # fmt: skip

    def edit(self, record: Mapping[str, Any], means: Mapping[str, float]) -> None:
        """One batch of edits: its diagnostics and immediate success."""
        row = {f"edit/{k}": v for k, v in record["diagnostics"].items()} | dict(means)
        self._log({"n_edits": record["n_edits"], "time/edit_s": record["edit_s"], **row}, 2 * record["n_edits"])

    def checkpoint(self, row: Mapping[str, Any]) -> None:
        self._log(row, 2 * row["n_edits"] + 1)

    def preempt(self) -> None:
        """The run was stopped from outside and will go on: W&B (and a sweep) may give it to another agent."""
        if self._run is not None:
            try:
                self._run.mark_preempting()
                self._run.finish(exit_code=1)
            except Exception as problem:  # noqa: BLE001
                log.warning("W&B could not be told that the run was stopped (%s)", problem)

    def finish(self, summary: Mapping[str, Any]) -> None:
        if self._run is not None:
            try:
                self._run.summary.update(dict(summary))
                self._run.finish()
            except Exception as problem:  # noqa: BLE001 - the results are on the disk; a mirror must not fail the run
                log.warning("W&B could not be finished (%s); sync %s later", problem, self._run.dir)

    def _log(self, row: Mapping[str, Any], step: int) -> None:
        if self._run is not None:
            try:
                self._run.log({k: v for k, v in row.items() if isinstance(v, int | float)}, step=step)
            except Exception as problem:  # noqa: BLE001
                log.warning("W&B did not take step %d (%s); it is in the results file", step, problem)


def _mode(asked: Mode) -> Any:
    if asked is not Mode.auto:
        return asked.value
    chosen = os.environ.get("WANDB_MODE")
    if chosen in ("online", "offline", "disabled"):
        return chosen
    return "online" if _has_key() else "offline"


def _has_key() -> bool:
    import netrc

    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
