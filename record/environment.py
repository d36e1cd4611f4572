"""environment.json of a run directory: the code, versions, hardware and speed keys of its edits and its rows."""

from __future__ import annotations

import functools
import logging
import os
import platform
import subprocess
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afteredit.record.settings import Resume
from afteredit.store.checked_lines import read_checked, write_checked
from afteredit.store.code_version import ROOT, differences, editing_version
from afteredit.store.errors import BadInput
from afteredit.store.user_cache import content_hash

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
IN_CHECKOUT = (ROOT / "pyproject.toml").is_file()  # else installed from a wheel
RUN = "python run.py" if IN_CHECKOUT else "afteredit run"  # what a command begins with
EMPTY: dict[str, Any] = {
    "forced": [], "moved": [], "speed": [], "evaluators": {}, "evaluations": {}, "wandb": [], "model": {},
    "lines": {}, "weights": None, "facts": None, "commands": [], "names": {}, "began": "", "alerts": [],
}  # fmt: skip


class Environment:
    """The content of environment.json.

    `decides`, `commit` and `hardware` are those of the first edit.  `forced` and `moved` hold the other code and the
    other hardware that later edits were made under, `speed` the speed keys, each with the number of edits before it.
    `evaluators` holds the measuring code by its short name, `evaluations` what decides the measurement by the name of
    the results file, `wandb` the ids of the W&B runs, `model` all that the model's fingerprint is made of, `lines`
    how many lines each JSON-lines file had after the last checkpoint, `weights` the types that the weights were stored
    in before they were made plain numbers, where a GGUF file held them, `facts` the SHA-256 of the edit set,
    `commands` every command that began the run or went on with it, each once, `names` the files of conf/ that the last
    of them chose, `began` when the first did, in UTC, and `alerts` those sent to W&B.
    """

    def __init__(self, folder: Path):
        self.folder, self.path = folder, folder / "environment.json"

    def __getitem__(self, key: str) -> Any:
        """Returns what is stored under `key`.  Raises BadInput where the file is damaged or missing."""
        return (EMPTY | read_checked(self.path))[key]

    def note(self, key: str, value: Any) -> None:
        """Stores `value` under `key`."""
        stored = read_checked(self.path)
        if stored.get(key) != value:
            write_checked(self.path, stored | {key: value})

    def extend(self, key: str, entries: Mapping[str, Any]) -> None:
        """Adds `entries` to the mapping that is stored under `key`."""
        self.note(key, {**self[key], **entries})

    def keep(self, device: torch.device, n_edits: int, resume: Resume) -> None:
        """Stores the code, versions and hardware that edits after the first `n_edits` are made under.

        Raises BadInput where the earlier edits were made under other code or versions, unless `resume` forces it.
        """
        now: dict[str, Any] = {"decides": editing_version(), "commit": commit(), "hardware": _hardware(device)}
        if not n_edits:
            stored = EMPTY | (read_checked(self.path) if self.path.exists() else {})
            began = stored["began"] or datetime.now(UTC).isoformat(timespec="seconds")
            write_checked(self.path, stored | now | {"began": began})
            return
        first, forced, moved = read_checked(self.path), self["forced"], self["moved"]
        then = [first, *forced][-1]["decides"]
        if then != now["decides"]:
            if resume is not Resume.force:
                raise BadInput(
                    f"{self.folder} was begun under other {differences(then, now['decides'])}: its weights could not "
                    "be made again by either; add resume=force to continue all the same, or change runs=<folder> to "
                    "start over"
                )
            self.note("forced", [*forced, {"after_edits": n_edits, **now}])
        if [first, *moved][-1]["hardware"] != now["hardware"]:
            log.warning("the edits before were made on other hardware or threads (environment.json): what is made from "
                        "here on may differ from an unmoved run's in the last bits")  # fmt: skip
            self.note("moved", [*moved, {"after_edits": n_edits, "hardware": now["hardware"]}])

    def other_model(self, parts: Mapping[str, Any]) -> str:
        """Returns in words what a model, given the parts of its fingerprint, differs in from the run's own; nothing for
        the same model, and for a run of an older version.  Only one side's fields of a config are passed over: other
        versions of transformers have others."""
        then, now = _flat(self["model"]), _flat(parts)
        changed = [key for key in then if key in now and then[key] != now[key]]
        return ", ".join(f"{key} ({now[key]!r} here, {then[key]!r} there)" for key in changed)

    def keep_speed(self, values: Mapping[str, Any], named: Collection[str], n_edits: int) -> dict[str, Any]:
        """Returns the speed keys that the run goes on with after `n_edits`, and stores them.

        They are those that it went by until now, but for the keys that this command has `named`.
        """
        stored = self["speed"]
        if not n_edits or not stored:
            self.note("speed", [{"after_edits": 0, **values}])
            return dict(values)
        before = {key: value for key, value in stored[-1].items() if key != "after_edits"}
        now = {key: value if key in named else before.get(key, value) for key, value in values.items()}
        for key in (key for key in now if now[key] != before.get(key)):
            log.warning("speed.%s is %s from here on, after %d edits; it was %s: the last bits of what follows may "
                        "differ", key, now[key], n_edits, before.get(key))  # fmt: skip
        if now != before:
            self.note("speed", [*stored, {"after_edits": n_edits, **now}])
        return now


def _flat(parts: Any) -> dict[str, Any]:
    """Returns the entries of a mapping and of those inside it, by dotted key; nothing for what is no mapping."""
    flat: dict[str, Any] = {}
    for key, value in parts.items() if isinstance(parts, Mapping) else []:
        inner = _flat(value)
        flat |= {f"{key}.{name}": entry for name, entry in inner.items()} if inner else {key: value}
    return flat


def fingerprint(parts: Mapping[str, Any]) -> str | None:
    """Returns the fingerprint of a run's model, given the stored parts of it; None for a run of an older version."""
    return content_hash(parts) if parts else None


@functools.cache  # of the process, whose code was read once
def commit() -> str:
    """Returns the commit of this program's checkout, with `-dirty` where files were changed; `unknown` where git cannot
    say it, and the release where there is no checkout: another repository may lie around the environment."""
    if not IN_CHECKOUT:
        return version("afteredit")
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _hardware(device: torch.device) -> dict[str, Any]:
    import torch

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    return {"device": str(device), "name": name, "machine": platform.machine(), "cores": os.cpu_count(),
            "threads": torch.get_num_threads(), "python": platform.python_version()}  # fmt: skip
