"""Reads run directories into `Run`s; those that an older version wrote too."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from pyarrow import ArrowException

from afteredit.analysis.read.run import Run, at
from afteredit.store.checked_lines import config_matches, read_checked, read_config, read_lines, refuse_links
from afteredit.store.errors import BadInput

log = logging.getLogger(__name__)


def read(paths: Iterable[Path]) -> list[Run]:
    """Returns the runs at `paths`: run directories, or folders that hold some at any depth.  Raises BadInput."""
    runs: dict[tuple[str, str], tuple[Path, Run]] = {}
    for path in paths:
        for folder in _run_folders(path):
            for run in read_run(folder):
                other, _ = runs.setdefault((run.name, run.evaluation), (folder, run))
                if other.resolve() != folder.resolve():
                    raise BadInput(f"{other} and {folder} hold the same run; give one of them")
    return [run for _, run in runs.values()]


def read_run(folder: Path, *, name: str | None = None, evaluation: str | None = None) -> list[Run]:
    """Returns one `Run` per results file of a run directory, or only that of `evaluation`.  Raises BadInput.

    They are called `name`, or as the directory.  What does not match its checksum is left out, and a sentence about it
    stands in the `faults` of every run of the directory.
    """
    refuse_links(folder)
    faults: list[str] = []
    config, evaluations = _config(folder / "config.yaml", faults), _evaluations(folder / "environment.json", faults)
    edits = _records(folder / "edits.jsonl", faults)
    runs = []
    for path in sorted(folder.glob(f"results-{evaluation}.jsonl" if evaluation else "results*.jsonl")):
        rows = sorted(_records(path, faults), key=lambda row: row["n_edits"])
        if not rows or rows[0]["n_edits"] != 0:
            log.warning("%s is left out: the unedited model has no row in it yet", path)
            continue
        digest = path.stem.partition("-")[2]
        seen = _under_its_view(config, evaluations, digest)
        runs.append(Run(name or folder.resolve().name, digest, seen, rows, _samples(folder, digest, rows, faults),
                        _with_immediate(edits, folder / f"immediate-{digest}.jsonl", faults)))  # fmt: skip
    for fault in faults:
        log.warning("%s", fault)
    if not runs:
        raise BadInput(f"{folder} holds no measured checkpoint ({'; '.join(faults) or 'nothing is damaged'}); let the "
                       "run measure the unedited model first")  # fmt: skip
    return [replace(run, faults=tuple(faults)) for run in runs]


def _evaluations(path: Path, faults: list[str]) -> dict[str, dict[str, Any]]:
    """Returns what decided the measurement of each results file, by its digest; nothing in older versions' runs."""
    if not path.exists():
        return {}
    try:
        evaluations = read_checked(path).get("evaluations", {})
        return {str(digest): dict(decided) for digest, decided in evaluations.items()}
    except (BadInput, OSError, ValueError, TypeError, AttributeError):
        faults.append(f"{path} does not match its checksum: under which views was measured is not known")
        return {}


def _under_its_view(config: dict[str, Any], evaluations: dict[str, dict[str, Any]], digest: str) -> dict[str, Any]:
    """Returns `config` with the constraint under which the results file was measured.

    A constraint that is only a view (PRUNE) changes no weight, so that one directory holds the results with it and
    without it, while its config.yaml is that of the last command.
    """
    view = evaluations.get(digest, {}).get("view")
    if view:
        return config | {"constraint": {"_target_": view["class"], **view}}
    classes = [str(decided["view"]["class"]) for decided in evaluations.values() if decided.get("view")]
    views = {name.rpartition(".")[2] for name in classes}
    last = str(at(config, "constraint._target_", "")).rpartition(".")[2]
    return config | {"constraint": {}} if digest in evaluations and last in views else config


def _with_immediate(edits: list[dict[str, Any]], path: Path, faults: list[str]) -> list[dict[str, Any]]:
    """Returns the journal's records, each with the success right after it under `immediate`.

    A file per evaluation holds it; in runs of an older version the journal's records hold it themselves.
    """
    immediate = {row["n_edits"]: row["immediate"] for row in _records(path, faults) if "immediate" in row}
    return [{**record, "immediate": immediate[record["n_edits"]]} if record["n_edits"] in immediate else record
            for record in edits]  # fmt: skip


def _samples(folder: Path, digest: str, rows: list[dict[str, Any]], faults: list[str]) -> pd.DataFrame:
    """Returns the examples of all rows.  Older versions' rows have no checksum; kept copies have no digest and no
    examples."""
    frames = []
    for row in rows:
        path, sha256 = folder / "samples" / f"{digest}-{row['n_edits']:06d}.parquet", row.get("samples_sha256")
        if not path.is_file():
            if sha256 and digest:
                faults.append(f"{path} is missing: no band and no test where its examples are needed")
            continue
        content = path.read_bytes()
        try:
            if sha256 and hashlib.sha256(content).hexdigest() != sha256:
                raise ValueError("it does not match its checksum")
            frames.append(pd.read_parquet(io.BytesIO(content)))
        except (ArrowException, OSError, ValueError) as problem:
            faults.append(f"{path} is damaged ({problem}): no band and no test where its examples are needed")
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _run_folders(path: Path) -> list[Path]:
    if not path.is_dir():
        raise BadInput(f"{path} is no folder; give run directories (runs/<method>-<model>-<hash>)")
    if (path / "config.yaml").is_file():
        return [path]
    measured = sorted({results.parent for results in path.rglob("results*.jsonl")})
    folders = [folder for folder in measured if (folder / "config.yaml").is_file()]
    if not folders:
        raise BadInput(f"{path} is no run directory and holds none: there is no config.yaml beside a results-*.jsonl; "
                       "give run directories (runs/<method>-<model>-<hash>)")  # fmt: skip
    return folders


def _config(path: Path, faults: list[str]) -> dict[str, Any]:
    """Returns the config as it is stored: nothing in it is looked up or built."""
    if not config_matches(path):
        faults.append(f"{path} does not match its checksum: labels, seeds and limits may be wrong")
    return read_config(path)


def _records(path: Path, faults: list[str]) -> list[dict[str, Any]]:
    """Returns the undamaged records.  Raises BadInput where one says no n_edits."""
    records, damaged = read_lines(path)
    faults += [f"{fault}; it is left out" for fault in damaged]
    for number, record in enumerate(records, start=1):
        if not isinstance(record.get("n_edits"), int):
            raise BadInput(f"{path}:{number} says no n_edits; restore it")
    return records
