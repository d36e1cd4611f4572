"""How a W&B run is begun: where, under which names, and with which axis."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from afteredit.record.settings import Mode, TrackerSettings

log = logging.getLogger(__name__)


def begun(
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
        "tags": settings.tags or None, "dir": str(folder), "config": dict(config),
        "name": os.environ.get("WANDB_NAME") or display_name(config),
        "reinit": "finish_previous",  # else a failed earlier run of this process would get the numbers
        "settings": wandb.Settings(silent=True, console="off", disable_git=True, git_commit=commit, save_code=False,
                                   finish_timeout_raises=True, **seconds,
                                   x_transaction_log_flush_interval=log_written_every),
    }  # fmt: skip
    if not os.environ.get("WANDB_SWEEP_ID"):  # an agent's run has its id, project and entity already
        options |= {"id": run_id, "project": settings.project_name, "entity": settings.entity}
    run = wandb.init(mode=mode, **options)
    run.define_metric("n_edits", hidden=True)  # an axis needs no panel
    run.define_metric("*", step_metric="n_edits")
    return run


def display_name(config: Mapping[str, Any]) -> str:
    """Returns the run's name in the browser: method, model, constraint, setting and seed."""
    model = config["model"]
    if model == "hf":  # as of every model without a file of its own
        model = Path(config["resolved"]["model"]["source"]).name
    parts = [config["method"], model, config.get("constraint"), config.get("setting"), f"seed {config.get('seed')}"]
    size = config.get("batch_size", 1)
    return " · ".join([str(part) for part in parts if part and part != "none"] + [f"batches of {size}"] * (size > 1))


def forget_failed_start() -> None:
    """Makes W&B let go of the run's id after a start that failed."""
    try:
        import wandb

        wandb.teardown()
    except Exception as problem:  # noqa: BLE001  as `Tracker` does: W&B raises anything
        log.warning("W&B could not be taken down (%s)", problem or type(problem).__name__)


def tracking_mode(mode: Mode) -> Any:
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
