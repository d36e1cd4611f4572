"""Reads run directories into `Run`s; those that an older version wrote too."""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from pyarrow import ArrowException

from afteredit.analysis.read.lines_of_a_run import LinesOfARun
from afteredit.analysis.read.made import made
from afteredit.analysis.read.run import Run, at
from afteredit.record.environment import fingerprint
from afteredit.store.checked_lines import config_fault, read_checked, read_config, refuse_strange_files
from afteredit.store.errors import BadInput
from afteredit.store.line_shapes import fault_of_edit, fault_of_immediate, fault_of_row, is_count, is_number
from afteredit.store.plain_json import printable
from afteredit.store.rows.stand_ins import stand_in
from afteredit.store.shared_texts import COLUMNS, FILE, read_texts

log = logging.getLogger(__name__)
# columns of the examples
NUMBERS = ("n_edits", "doc_id", "numerator", "denominator", "gold_nll", "unparseable", "choice")


def read(paths: Iterable[Path]) -> list[Run]:
    """Returns the runs at `paths`: run directories, or folders that hold some, or links to some, at any depth.

    Raises BadInput where two folders hold the same run: under one name, or a copy of it under another.
    """
    runs: dict[tuple[Path, str], Run] = {}
    folders: dict[tuple[str, str], Path] = {}
    for path in paths:
        for folder in _run_folders(path):
            for run in read_run(folder):
                for mark in (run.name, _begin(run)):
                    other = folders.setdefault((mark, run.evaluation), folder)
                    if other.resolve() != folder.resolve():
                        raise BadInput(f"{other} and {folder} hold the same run; give one of them")
                runs[folder.resolve(), run.evaluation] = run
    return list(runs.values())


def _begin(run: Run) -> str:
    """Returns the row of the unedited model, with the seconds that it took, which no other run has; the name of a run
    that says no time.  A copy may have gone on with other edits since."""
    return json.dumps(run.rows[0], sort_keys=True) if "time/eval_s" in run.rows[0] else run.name


def read_run(folder: Path, *, name: str | None = None, evaluation: str | None = None) -> list[Run]:
    """Returns one `Run` per results file of a run directory, or only that of `evaluation`.  Raises BadInput.

    They are called `name` (a copy from W&B), or as the directory.  What does not match its checksum, or is missing, is
    left out, and a sentence about it stands in the `faults` of every run of the directory.
    """
    refuse_strange_files(folder)
    faults: list[str] = []
    config, environment = _config(folder / "config.yaml", faults), _environment(folder, faults, copied=name is not None)
    lines = LinesOfARun(folder, environment.get("lines", {}), faults)
    edits = lines.read(folder / "edits.jsonl", fault_of_edit)
    runs = []
    for path in lines.results(evaluation, environment.get("evaluations", {})):
        rows = list({row["n_edits"]: row for row in lines.read(path, fault_of_row)}.values())
        rows.sort(key=lambda row: row["n_edits"])
        if not rows or rows[0]["n_edits"] != 0:
            log.warning("%s is left out: the unedited model has no row in it yet", path)
            continue
        digest = printable(path.stem.partition("-")[2])
        seen = _under_its_view(config, environment.get("evaluations", {}), digest)
        immediate = lines.read(folder / f"immediate-{digest}.jsonl", fault_of_immediate)
        samples = _samples(folder, digest, rows, faults)
        runs.append(Run(name or printable(folder.resolve().name), digest, seen, rows, samples,
                        _with_immediate(edits, immediate), fingerprint=environment.get("fingerprint"),
                        facts=environment.get("facts"), weights=environment.get("weights"),
                        made=made(environment, digest), environment=environment))  # fmt: skip
        lines.compare(edits, rows, path)
    for fault in faults:
        log.warning("%s", printable(fault))
    if not runs:
        raise BadInput(f"{folder} holds no measured checkpoint ({'; '.join(faults) or 'nothing is damaged'}); let the "
                       "run measure the unedited model first")  # fmt: skip
    return [replace(run, faults=tuple(faults)) for run in runs]


def _environment(folder: Path, faults: list[str], *, copied: bool) -> dict[str, Any]:
    """Returns what environment.json says of the measurements: `evaluations`, what decided each, `lines`, how many were
    written, `fingerprint` and `weights` of the model, and `facts`; all else as it stands.  Copies, those in W&B and
    those called results.jsonl, have none.
    """
    path = folder / "environment.json"
    if not path.exists() and (copied or (folder / "results.jsonl").exists()):
        return {}
    try:
        stored = read_checked(path)
        evaluations, lines = stored.get("evaluations", {}), stored.get("lines", {})
        views = [decided.get("view") for decided in evaluations.values()]
        if not all(isinstance(view["class"], str) for view in views if view) or not all(map(is_count, lines.values())):
            raise ValueError
        model, words = stored.get("model", {}), {key: stored.get(key) for key in ("facts", "weights")}
        if not isinstance(model, dict) or not all(isinstance(text, str | None) for text in words.values()):
            raise ValueError
        return {**stored, "evaluations": evaluations, "lines": lines, "fingerprint": fingerprint(model), **words}
    except (BadInput, ValueError, TypeError, AttributeError, KeyError):
        faults.append(f"{path} is missing or damaged: under which views was measured, and whether lines of other files "
                      "are missing, is not known; restore it")  # fmt: skip
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


def _with_immediate(edits: list[dict[str, Any]], immediate: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the journal's records, each with the success right after it under `immediate` and what was `generated`.

    A file per evaluation holds both; in runs of an older version the journal's records hold them themselves.
    """
    parts = ("immediate", "generated")
    measured = {row["n_edits"]: {str(part): row[part] for part in parts if part in row} for row in immediate}
    return [{**record, **measured.get(record["n_edits"], {})} for record in edits]


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
                instead = stand_in(content[:200])
                raise ValueError(f"it is {instead}" if instead else "it does not match its checksum")
            frames.append(_examples(pd.read_parquet(io.BytesIO(content))))
        except (ArrowException, OSError, ValueError) as problem:
            faults.append(f"{path} is damaged ({problem}): no band and no test where its examples are needed")
    return _with_texts(pd.concat(frames, ignore_index=True), folder / "samples", faults) if frames else pd.DataFrame()


def _with_texts(frame: pd.DataFrame, folder: Path, faults: list[str]) -> pd.DataFrame:
    """Returns the examples with texts in place of the references to them; older versions kept no texts."""
    columns = [name for name in COLUMNS if name in frame]
    if columns:
        texts, damaged = read_texts(folder)
        n_lost = len({name for column in columns for name in frame[column].dropna()} - texts.keys())
        lost = [f"{folder / FILE} lacks {n_lost} texts of the examples; restore it"] if n_lost and not damaged else []
        faults += [fault for fault in (*damaged, *lost) if fault not in faults]
        frame = frame.assign(**{name: frame[name].map(texts).astype(object) for name in columns})
    return frame


def _examples(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns the examples of a file.  Raises ValueError where they have not the columns that a run writes."""
    lost = [name for name in ("n_edits", "kind", "name") if name not in frame and len(frame)]
    texts = [name for name in NUMBERS if name in frame and frame[name].dtype.kind not in "iufb"]
    if lost or any(frame[name].notna().any() for name in texts):
        raise ValueError(f"its column {[*lost, *texts][0]} is missing or holds no numbers")
    for name in (name for name in COLUMNS if name in frame):
        if not all(isinstance(value, str) for value in frame[name].dropna()):
            raise ValueError(f"its column {name} holds no references to texts")
    return frame


def _run_folders(path: Path) -> list[Path]:
    if not path.is_dir():
        raise BadInput(f"{path} is no folder; give run directories (runs/<method>-<model>-<hash>)")
    if (path / "config.yaml").exists():
        return [path]
    linked = (link for link in path.rglob("*") if link.is_symlink() and link.is_dir() and link.parent.name != "wandb")
    measured = sorted({results.parent for place in (path, *linked) for results in place.rglob("results*.jsonl")})
    folders = [folder for folder in measured if (folder / "config.yaml").exists()]
    if not folders:
        raise BadInput(f"{path} is no run directory and holds none: there is no config.yaml beside a results-*.jsonl; "
                       "give run directories (runs/<method>-<model>-<hash>)")  # fmt: skip
    return folders


def _config(path: Path, faults: list[str]) -> dict[str, Any]:
    """Returns the config as it is stored: nothing in it is looked up or built.  Raises BadInput where what is read of
    it are no numbers."""
    config, fault = read_config(path), config_fault(path)
    if fault:
        faults.append(f"{fault}; until then labels, seeds and limits may be wrong")
    tasks = config.get("task")
    tasks = tasks if isinstance(tasks, dict) else {}
    wanted = {"seed": ("a whole number", is_count), "batch_size": ("a whole number", is_count),
              "collapse_perplexity": ("a number", is_number), "method._target_": ("a class", _is_class),
              "constraint._target_": ("a class", _is_class), "harness": ("a list", _is_list),
              **{f"task.{name}.chance": ("a number", is_number) for name in tasks}}  # fmt: skip
    for key, (kind, right) in wanted.items():
        value = at(config, key)
        if value is not None and not right(value):
            raise BadInput(f"{path}: {key} is {value!r}, not {kind}; restore it")
    return config


def _is_class(name: Any) -> bool:
    return isinstance(name, str) and "." in name


def _is_list(names: Any) -> bool:
    return isinstance(names, list) and all(isinstance(name, str) for name in names)
