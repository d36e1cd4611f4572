"""environment.json of a run directory: the code, versions and hardware that its edits and its rows were made under."""

from __future__ import annotations

import logging
import platform
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afteredit.record.settings import Resume
from afteredit.store.checked_lines import read_checked, write_checked
from afteredit.store.code_version import ROOT, differences, editing_version
from afteredit.store.errors import BadInput

if TYPE_CHECKING:
    from afteredit.model.lm import LM

log = logging.getLogger(__name__)


class Environment:
    """`decides`, `commit`, `hardware`: of the first edit; `forced`, `moved`: what else edits were made under, and after
    how many; `evaluators`: who measured, by name; `wandb`: the ids of its W&B runs."""

    def __init__(self, folder: Path):
        self.folder, self.path = folder, folder / "environment.json"

    def __getitem__(self, key: str) -> Any:
        """Raises BadInput where the file is damaged or missing."""
        return read_checked(self.path)[key]

    def note(self, key: str, value: Any) -> None:
        stored = read_checked(self.path)
        if stored[key] != value:
            write_checked(self.path, stored | {key: value})

    def keep(self, lm: LM, n_edits: int, resume: Resume) -> None:
        """Writes what `lm` is to be edited under, the journal holding `n_edits`.  Raises BadInput where these were
        made under other code or versions, unless `resume` forces it."""
        now: dict[str, Any] = {"decides": editing_version(), "commit": commit(), "hardware": _hardware(lm)}
        nothing: dict[str, Any] = {"forced": [], "moved": [], "evaluators": {}, "wandb": []}
        if not n_edits:
            write_checked(self.path, nothing | (read_checked(self.path) if self.path.exists() else {}) | now)
            return
        kept = read_checked(self.path)
        then = [kept, *kept["forced"]][-1]["decides"]
        if then != now["decides"]:
            if resume is not Resume.force:
                raise BadInput(
                    f"{self.folder} was begun under other {differences(then, now['decides'])}: its weights could not "
                    "be made again by either; add resume=force to continue all the same, or change runs=<folder> to "
                    "start over"
                )
            self.note("forced", [*kept["forced"], {"after_edits": n_edits, **now}])
        if [kept, *kept["moved"]][-1]["hardware"] != now["hardware"]:
            log.warning("the edits before were made on other hardware or threads (environment.json): what is made from "
                        "here on may differ from an unmoved run's in the last bits")  # fmt: skip
            self.note("moved", [*kept["moved"], {"after_edits": n_edits, "hardware": now["hardware"]}])


def commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _hardware(lm: LM) -> dict[str, Any]:
    import os

    import torch

    name = torch.cuda.get_device_name(lm.device) if lm.device.type == "cuda" else platform.processor()
    return {"device": str(lm.device), "name": name, "machine": platform.machine(), "cores": os.cpu_count(),
            "threads": torch.get_num_threads(), "python": platform.python_version()}  # fmt: skip
