"""Runs as they lie on the disk, read into tables.  Whoever reads results from elsewhere gives the same `Run`."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

log = logging.getLogger(__name__)


class BadResults(ValueError):
    """What was given cannot be read as results; says what was given, what is allowed, and the remedy."""


@dataclass(frozen=True)
class Run:
    """One run under one evaluation configuration."""

    name: str  # its directory's: <method>-<model>-<hash>
    evaluation: str  # what was measured and how: the digest that names the results file
    config: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]  # one per checkpoint, by n_edits; the first is the unedited model's
    samples: pd.DataFrame = field(default_factory=pd.DataFrame)  # every example at every checkpoint; may be empty
    broken_at: int | None = None  # an update held NaN or infinity
    edits: Sequence[Mapping[str, Any]] = ()  # the journal's records, one per batch of edits; empty where there is none
    models: Sequence[Mapping[str, Any]] = ()  # of a run with setting=single: the rows that the last of `rows` averages

    @property
    def method(self) -> str:
        """`rome`, or `rome+rect` under a constraint."""
        target = at(self.config, "method._target_")
        name, found, _ = self.name.rpartition(f"-{self.model}-")
        if not found:  # a renamed directory
            name = target.split(".")[-2] if target else at(self.config, "method", self.name)
        constraint = (at(self.config, "constraint._target_") or "").rpartition(".")[2]
        return name if constraint in ("", "Unconstrained") else f"{name}+{constraint.lower()}"

    @property
    def model(self) -> str:
        """A sweep's agent leaves the group's name where its content was."""
        model = self.config.get("model")
        return model if isinstance(model, str) else str(at(model, "name", ""))

    @property
    def seed(self) -> int:
        return int(self.config.get("seed", 0))

    @property
    def single(self) -> bool:
        """Does each measured model hold one batch of edits, and nothing of those before?"""
        return at(self.config, "setting") == "single"

    @property
    def edited(self) -> Sequence[Mapping[str, Any]]:
        """The row of every edited model that was measured."""
        return self.models or self.rows[1:]

    @property
    def n_edits(self) -> int:
        return int(self.rows[-1]["n_edits"])

    @property
    def abilities(self) -> list[str]:
        return [key.partition("/")[2] for key in self.rows[0]
                if key.startswith("ability/") and key.count("/") == 1 and key != "ability/retained"]  # fmt: skip

    @property
    def collapsed_at(self) -> int | None:
        """As the run itself says it: NaN in an update, or perplexity past its limit or not finite.  None in
        setting=single, where no model is built on another."""
        found = [] if self.broken_at is None else [self.broken_at]
        found += [int(row["n_edits"]) for row in self.edited if self._is_past_limit(row)]
        return None if self.single else min(found, default=None)

    @property
    def n_collapsed(self) -> int:
        """How many of the measured models did, in setting=single."""
        broken = {record["n_edits"] for record in self.edits if "collapsed" in record.get("diagnostics", {})}
        return sum(row["n_edits"] in broken or self._is_past_limit(row) for row in self.edited)

    def _is_past_limit(self, row: Mapping[str, Any]) -> bool:
        base, now = (r.get("drift/perplexity") for r in (self.rows[0], row))
        if base is None or now is None:
            return False
        return not now <= float(self.config.get("collapse_perplexity", math.inf)) * base

    @cached_property
    def examples(self) -> dict[tuple[str, int], pd.DataFrame]:
        """By (ability, n_edits): numerator, denominator, gold_nll, unparseable; indexed by doc_id.  Where the last of
        `rows` averages models, so does what is here of an example."""
        if "kind" not in self.samples or "doc_id" not in self.samples:
            return {}
        own = self.samples[self.samples["kind"] == "ability"]
        if self.models:
            own = own.assign(n_edits=own["n_edits"].where(own["n_edits"] == 0, self.n_edits))
            own = own.groupby(["name", "n_edits", "doc_id"], as_index=False).mean(numeric_only=True)
        own = own.set_index("doc_id")
        return {(str(name), int(n)): frame for (name, n), frame in own.groupby(["name", "n_edits"])}

    def row(self, n_edits: int) -> Mapping[str, Any] | None:
        return next((row for row in self.rows if row["n_edits"] == n_edits), None)


def read(paths: Iterable[Path]) -> list[Run]:
    """The runs at `paths`: run directories, or folders with run directories somewhere below.  Raises BadResults."""
    runs: dict[tuple[str, str], tuple[Path, Run]] = {}
    for path in paths:
        for folder in _run_folders(path):
            for run in read_run(folder):
                other, _ = runs.setdefault((run.name, run.evaluation), (folder, run))
                if other.resolve() != folder.resolve():
                    raise BadResults(f"{other} and {folder} hold the same run; give one of them")
    return [run for _, run in runs.values()]


def read_run(folder: Path, name: str | None = None) -> list[Run]:
    """One `Run` per results file of a run directory, called `name` or as the directory.  Raises BadResults."""
    config = _config(folder / "config.yaml")
    edits = _lines(folder / "edits.jsonl")
    broken = [record["n_edits"] for record in edits if "collapsed" in record.get("diagnostics", {})]
    runs = []
    for path in sorted(folder.glob("results*.jsonl")):
        rows = sorted(_lines(path), key=lambda row: row["n_edits"])
        if not rows or rows[0]["n_edits"] != 0:
            log.warning("%s is left out: the unedited model has no row in it yet", path)
            continue
        evaluation = path.stem.partition("-")[2]
        own = [folder / "samples" / f"{evaluation}-{row['n_edits']:06d}.parquet" for row in rows]
        frames = [pd.read_parquet(sample) for sample in own if sample.exists()]
        samples = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
        runs.append(
            Run(name or folder.resolve().name, evaluation, config, rows, samples, min(broken, default=None), edits)
        )
    if not runs:
        raise BadResults(f"{folder} holds no measured checkpoint; let the run measure the unedited model first")
    return runs


def paired(runs: Sequence[Run], ability: str, n_edits: int, gold: bool = False) -> tuple[np.ndarray, np.ndarray] | None:
    """(before_S2N, after_S2N): S runs × (numerators, denominators) × the N examples that all have at 0 and `n_edits`.

    `gold`: the gold answer's NLL in place of the headline score.  None where a run has no such examples.
    """
    frames = [run.examples.get((ability, n)) for run in runs for n in (0, n_edits)]
    columns = [_scores(frame, gold) for frame in frames if frame is not None]
    if len(columns) < len(frames) or not frames:
        return None
    both = pd.concat(columns, axis=1, join="inner", keys=range(len(columns)))
    if both.empty:
        return None
    values_S22N = both.to_numpy(dtype=float).T.reshape(len(runs), 2, 2, len(both))
    return values_S22N[:, 0], values_S22N[:, 1]


def at(config: Any, path: str, default: Any = None) -> Any:
    """`config`'s value at a dotted path."""
    for key in path.split("."):
        if not isinstance(config, Mapping) or key not in config:
            return default
        config = config[key]
    return config


def _scores(frame: pd.DataFrame, gold: bool) -> pd.DataFrame:
    if gold:
        return frame[["gold_nll"]].dropna().assign(one=1.0)
    return frame[["numerator", "denominator"]]


def _run_folders(path: Path) -> list[Path]:
    if not path.is_dir():
        raise BadResults(f"{path} is no folder; give run directories (runs/<method>-<model>-<hash>)")
    if (path / "config.yaml").is_file():
        return [path]
    below = sorted({found.parent for found in path.rglob("results*.jsonl")})
    found = [folder for folder in below if (folder / "config.yaml").is_file()]
    if not found:
        raise BadResults(f"{path} is no run directory and has none below it: no config.yaml beside a results-*.jsonl; "
                         "give run directories (runs/<method>-<model>-<hash>)")  # fmt: skip
    return found


def _config(path: Path) -> dict[str, Any]:
    try:
        config = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as problem:
        raise BadResults(f"{path} cannot be read ({' '.join(str(problem).split())}); restore it") from None
    if not isinstance(config, dict):
        raise BadResults(f"{path} is no config; restore it")
    return {str(key): value for key, value in config.items()}


def _lines(path: Path) -> list[dict[str, Any]]:
    """A JSON-lines file's records, as the run wrote them; a torn last line (a run still writing) is left out.

    Lines end at line feeds only: texts hold U+2028 and their like.  Raises BadResults where a line is none, or does not
    match its checksum.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().removesuffix(b"\n").split(b"\n")
    records = []
    for number, line in enumerate(lines, start=1):
        record = _record(line)
        if record is None:
            if number == len(lines):
                break
            raise BadResults(f"{path}:{number} is damaged: no JSON object with n_edits that matches its checksum; "
                             "restore it")  # fmt: skip
        records.append(record)
    return records


def _record(line: bytes) -> dict[str, Any] | None:
    """None where it is damaged.  `check` is the journal's: of the record without it, keys sorted, texts as they are."""
    try:
        record = json.loads(line)
        check = record.pop("check", None)
        record["n_edits"] = int(record["n_edits"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    text = json.dumps(record, ensure_ascii=False, sort_keys=True)
    return record if check in (None, hashlib.sha256(text.encode()).hexdigest()[:16]) else None
