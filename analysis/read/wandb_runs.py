"""Reads runs from Weights & Biases: the artifact with their results files, or their history where there is none yet.

The history holds every checkpoint's numbers but no examples, so it gives no bands and no tests.  What the row of the
unedited model holds beside numbers stands in the summary.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from afteredit.analysis.read.made import Made
from afteredit.analysis.read.run import Run
from afteredit.analysis.read.run_folders import read_run
from afteredit.store.errors import BadInput

log = logging.getLogger(__name__)
CHECKPOINT = "drift/perplexity"  # in the row of every checkpoint and of no edit
BESIDE_NUMBERS = {"measurable": list, "chance": dict}  # of the row at 0 edits


def read_project(path: str, api: Any = None) -> list[Run]:
    """Returns every run of ENTITY/PROJECT that was measured.  Raises BadInput."""
    owner_and_project(path)
    return _read(f"--wandb {path}", lambda: (api or new_api()).runs(path))


def read_sweep(path: str, api: Any = None) -> list[Run]:
    """Returns every run of a sweep that was measured.  Raises BadInput."""
    return _read(f"--sweep {path}", lambda: (api or new_api()).sweep(path).runs)


def owner_and_project(path: str) -> tuple[str, str]:
    """Returns the two parts of ENTITY/PROJECT.  Raises BadInput where it has others."""
    if path.count("/") != 1 or not all(path.split("/")):
        raise BadInput(f"--wandb {path}: it must be ENTITY/PROJECT")
    entity, project = path.split("/")
    return entity, project


def new_api() -> Any:
    """Returns W&B's public API.  Raises what W&B raises."""
    import wandb

    return wandb.Api(overrides={"project": "afteredit"})


@contextmanager
def readable(source: str) -> Iterator[None]:
    """Turns W&B's errors inside into a BadInput that names what was to be read."""
    import requests
    import wandb
    from wandb.sdk.lib.service.service_connection import WandbApiFailedError  # no wandb.errors.Error

    try:
        yield
    except (wandb.errors.Error, WandbApiFailedError, requests.RequestException, ValueError) as problem:
        if isinstance(problem, BadInput):
            raise
        reason = " ".join(str(problem).split())
        raise BadInput(
            f"{source} cannot be read ({reason}); check the name, WANDB_BASE_URL and `wandb login`"
        ) from None


def _read(source: str, list_runs: Any) -> list[Run]:
    """Returns each run once; of a run tracked twice (resumed under another id), the one with most rows."""
    best: dict[tuple[str, str], Run] = {}
    with readable(source):
        for tracked in list_runs():
            for run in _runs(tracked):
                other = best.get((run.name, run.evaluation))
                if other is None or len(run.rows) > len(other.rows):
                    best[run.name, run.evaluation] = run
    if not best:
        raise BadInput(f"{source} has no run with a measured checkpoint")
    return list(best.values())


def _runs(tracked: Any) -> list[Run]:
    artifact = _artifact(tracked)
    if artifact is not None:
        with tempfile.TemporaryDirectory() as folder:
            runs = read_run(Path(artifact.download(root=folder)), name=_name(tracked))
            return [replace(run, **_contents(tracked), made=_made(tracked, run.made)) for run in runs]
    rows = _history(tracked.scan_history(), tracked.summary)
    if not rows or rows[0]["n_edits"] != 0:
        log.warning("W&B run %s (%s) is left out: the unedited model has no row in it yet", tracked.name, tracked.id)
        return []
    config, collapsed = dict(tracked.config), tracked.summary.get("summary/collapse")
    return [Run(_name(tracked), config.get("evaluation", ""), config.get("resolved", config), rows,
                reported_collapse=None if collapsed is None else int(collapsed), **_contents(tracked),
                made=_made(tracked, Made()))]  # fmt: skip


def _name(tracked: Any) -> str:
    """Returns the name of the run's directory; older versions called the W&B run so too."""
    return str(tracked.config.get("run", tracked.name))


def _contents(tracked: Any) -> dict[str, Any]:
    """Returns what says which model was edited, and by which facts."""
    return {key: tracked.config.get(key) for key in ("fingerprint", "facts", "weights")}


def _made(tracked: Any, known: Made) -> Made:
    """Returns what the files of the run say, and of the rest what W&B does."""
    return replace(known, url=tracked.url, began=known.began or tracked.created_at,
                   commit=known.commit or str(tracked.config.get("commit", "")))  # fmt: skip


def _artifact(tracked: Any) -> Any:
    """Returns the newest artifact with results that this run itself logged, None where there is none."""
    results = [artifact for artifact in tracked.logged_artifacts()
               if artifact.type == "results" and artifact.name.startswith(f"results-{tracked.id}:")]  # fmt: skip
    return max(results, key=lambda artifact: int(artifact.version.lstrip("v")), default=None)


def _history(history: Iterable[Mapping[str, Any]], summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the checkpoints' rows, ordered by n_edits; W&B gives NaN and infinity as text."""
    rows = []
    for logged in history:
        if logged.get(CHECKPOINT) is None or logged.get("n_edits") is None:
            continue
        row: dict[str, Any] = {key: float(value) for key, value in logged.items()
                               if not key.startswith(("_", "chance/")) and _is_number(value)}  # fmt: skip
        rows.append(row | {"n_edits": int(row["n_edits"])})
    rows.sort(key=lambda row: row["n_edits"])
    if rows:
        rows[0] |= {key: kind(summary[key]) for key, kind in BESIDE_NUMBERS.items() if key in summary}
    return rows


def _is_number(value: Any) -> bool:
    return value in ("NaN", "Infinity", "-Infinity") or (isinstance(value, int | float) and not isinstance(value, bool))
