"""Run directories that an older version of this program made: how they are recognised, and what is said of them.

Before this version a record of edits.jsonl also held the success right after its edit (`immediate`, `generated`), and
environment.json held no speed keys; until later it did not say which model was edited, and a run's name did not hold
the model's config.
"""

from __future__ import annotations

import logging
from pathlib import Path

from afteredit.store.plain_json import read_json

log = logging.getLogger(__name__)
MOST_NAMED = 5


def older_commit(folder: Path, key: str = "speed") -> str | None:
    """Returns the commit of the older version that made the run in `folder`; None where environment.json has the `key`
    of this version."""
    try:
        environment = read_json((folder / "environment.json").read_bytes())
        return None if key in environment else str(environment["commit"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def name_older_runs(folder: Path, label: str) -> None:
    """Warns of runs of the same method and model (`label`) beside `folder` that an older version made."""
    commits = {path: older_commit(path, "model") for path in sorted(folder.parent.glob(f"{label}-*"))
               if path.name.rpartition("-")[0] == label}  # fmt: skip
    older = [(path, commit) for path, commit in commits.items() if commit is not None]
    for path, commit in older[:MOST_NAMED]:
        log.warning("%s was made by an older version of this program (commit %s), which named runs otherwise: it is "
                    "not continued here", path, commit)  # fmt: skip
