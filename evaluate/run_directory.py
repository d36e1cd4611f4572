"""One run's directory: what decides its weights names it; what evaluates it names its results files."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from afteredit.config import Experiment, OnCollapse, Resume
from afteredit.edit.cache import content_hash
from afteredit.edit.journal import Journal, write_atomically, write_json
from afteredit.edit.lm import LM
from afteredit.edit.method import Prepared
from afteredit.edit.request import BadInput, EditRequest
from afteredit.edit.update import Update
from afteredit.evaluate.ability import Ability, measurable
from afteredit.evaluate.prepare_tasks import held_out_text, rows_sha256, shipped_abilities
from afteredit.evaluate.results import Results
from afteredit.evaluate.tracker import Tracker

log = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parent.parent
DECIDING_PACKAGES = ("torch", "transformers", "tokenizers")


class RunDirectory:
    """Opened for one process; a context manager.  Raises BadInput where the run cannot be continued here."""

    @classmethod
    def of(cls, x: Experiment, lm: LM, edits_sha256: str) -> RunDirectory:
        """The one that what decides the weights names, made where it is not there yet."""
        s = x.settings
        decides = {
            "model": lm.fingerprint, "method": _values(x.method), "constraint": _values(x.constraint),
            "edits": edits_sha256, "order": x.edits.order.value, "batch_size": s.batch_size,
            "setting": s.setting.value, "seed": s.seed, "dtype": s.dtype.value, "device": lm.device.type,
        }  # fmt: skip
        name = f"{x.names['method']}-{x.names['model']}-{content_hash(decides)[:8]}"
        folder = Path(s.runs) / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise BadInput(f"runs={s.runs}: the run directory cannot be made there: {problem}") from None
        run = cls(x, folder)
        with run._in_use():
            run._keep_environment(lm)
        return run

    def __init__(self, x: Experiment, folder: Path):
        """The one in `folder`, as it is."""
        self.x, self.folder, s = x, folder, x.settings
        self.abilities: dict[str, Ability] = {**x.tasks, **shipped_abilities(s.harness)}
        evaluates = {
            "tasks": {name: _values(ability) for name, ability in self.abilities.items()}, "limit": s.limit,
            "rows": rows_sha256(x.tasks, s.data), "held_out_tokens": s.held_out_tokens,
            "held_out": hashlib.sha256(held_out_text(s).encode()).hexdigest(),
        }  # fmt: skip
        with self._in_use():
            self.journal = Journal(folder)
            self.results = Results(self.folder, content_hash(evaluates)[:8])
        self.prepared = Prepared()

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.journal.close()

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        """What cannot be read or written in the directory is said in one line."""
        try:
            yield
        except OSError as problem:
            raise BadInput(
                f"{self.folder} cannot be used ({problem.strerror}: {problem.filename}); make all of it readable and "
                "writable, or change runs=<folder> to start over"
            ) from None

    def is_finished(self, batches: Sequence[Sequence[EditRequest]]) -> bool:
        """Raises BadInput where the journal holds other edits than `batches` begins with."""
        for index, batch in enumerate(batches[: self.journal.n_batches]):
            self.journal.refuse_other_edits(index, batch)
        n_edits = sum(map(len, batches))
        if self.collapsed_at is not None and self.stops_at(min(self.collapsed_at, n_edits)):
            n_edits = self.collapsed_at
        return self.journal.n_edits >= n_edits and self.results.has(n_edits)

    @property
    def collapsed_at(self) -> int | None:
        """After how many edits an update held NaN or infinity, or a checkpoint's perplexity was past its limit."""
        found = [r["n_edits"] for r in self.journal.records if "collapsed" in r["diagnostics"]]
        if self.results.has(0):
            limit = self.x.settings.collapse_perplexity * self.results.row(0)["drift/perplexity"]
            found += [row["n_edits"] for row in self.results.rows if not row["drift/perplexity"] <= limit]
        return min(found, default=None)

    def stops_at(self, n_edits: int) -> bool:
        """Is nothing to be written after so many edits, because the model has collapsed and on_collapse=stop?"""
        stop = self.x.settings.on_collapse is OnCollapse.stop
        return stop and self.collapsed_at is not None and n_edits >= self.collapsed_at

    def with_contexts(self, prepared: Prepared) -> Prepared:
        """The run's own context prefixes where it has them, else the new ones, stored."""
        path = self.folder / "prefixes.json"
        if path.exists():
            stored = _read(path, "contexts", "constants")
            if self.journal.n_batches and stored["constants"] != dict(prepared.hashes):
                raise BadInput(
                    f"{self.folder} was begun with constants {stored['constants']}, the config now gives "
                    f"{dict(prepared.hashes)} (another text behind the second moment?); restore it, or change "
                    "runs=<folder> to start over"
                )
            return dataclasses.replace(prepared, contexts=tuple(stored["contexts"]))
        write_json(path, {"contexts": list(prepared.contexts), "constants": dict(prepared.hashes)})
        return prepared

    def apply(self, lm: LM, update: Update) -> None:
        """Writes one batch's update, new or from the journal, as the constraint lets it through."""
        lm.apply(self.x.constraint.constrain(update, lm.W, lm.W_base))

    def add_checkpoint(self, n_edits: int, row: Mapping[str, float], samples: Sequence[Any], sha256: str) -> None:
        full = {"n_edits": n_edits, "weights_sha256": sha256, **row}
        if n_edits == 0:
            full["measurable"] = measurable(samples, {name: a.chance for name, a in self.abilities.items()})
        full |= self._retained(full)
        self.results.append(full, [{"n_edits": n_edits, **sample} for sample in samples])

    def tracker(self) -> Tracker:
        """Nothing can be refused any more: from here on the directory is this config's."""
        from omegaconf import OmegaConf

        with self._in_use():
            write_atomically(self.folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(self.x.resolved)).encode())
        run_id = f"{self.folder.name}-{self.results.digest}"
        tracker = Tracker(self.x.tracker, self.folder, run_id, self.folder.name, self.x.resolved)
        self._note(tracker.ids)
        return tracker

    def commands_to_look_further(self, tracker: Tracker) -> list[str]:
        ids = tracker.ids
        if not ids:
            return []
        if ids["url"]:
            return [f"W&B      {ids['url']}"]
        return [f"look     wandb leet {ids['folder']}", f"upload   wandb sync {ids['folder']}"]

    def _retained(self, row: Mapping[str, Any]) -> dict[str, float]:
        """`ability/retained`: mean of (score − chance) / (base − chance) over abilities measurable at the start."""
        base = self.results.row(0) if self.results.has(0) else row
        shares = [self.share(name, row, base) for name in base.get("measurable", [])]
        return {"ability/retained": sum(shares) / len(shares)} if shares else {}

    def share(self, name: str, row: Mapping[str, Any], base: Mapping[str, Any]) -> float:
        """What `row` has left of an ability that `base`, the row at 0 edits, has: 1 all of it, 0 chance."""
        chance, key = self.abilities[name].chance, f"ability/{name}"
        return float((row[key] - chance) / (base[key] - chance))

    def _keep_environment(self, lm: LM) -> None:
        """Writes the environment once; refuses to continue under other code unless resume=force."""
        now = {"code": _code_sha256(), "packages": {name: version(name) for name in DECIDING_PACKAGES}}
        path = self.folder / "environment.json"
        if path.exists():
            then = _read(path, "decides", "wandb")["decides"]
            if then != now and self.journal.n_batches and self.x.settings.resume is not Resume.force:
                changed = [key for key in now if then.get(key) != now[key]]
                raise BadInput(
                    f"{self.folder} was begun under other {' and '.join(changed)} ({then} then, {now} now); add "
                    "resume=force to continue all the same, or change runs=<folder> to start over"
                )
            return
        write_json(path, {"decides": now, "commit": _commit(), "hardware": _hardware(lm), "wandb": []})

    def _note(self, ids: Mapping[str, str]) -> None:
        path = self.folder / "environment.json"
        environment = json.loads(path.read_text(encoding="utf-8"))
        if ids and dict(ids) not in environment["wandb"]:
            environment["wandb"].append({**ids, "results": self.results.digest})
            write_json(path, environment)


def _read(path: Path, *keys: str) -> dict[str, Any]:
    """A JSON file that this project wrote.  Raises BadInput where it is damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if all(key in value for key in keys):
            return dict(value)
    except (ValueError, TypeError):
        pass
    raise BadInput(f"{path} is damaged: it must be a JSON object with {' and '.join(keys)}; restore it, or change "
                   "runs=<folder> to start over")  # fmt: skip


def _values(dataclass: Any) -> dict[str, Any]:
    return {"class": type(dataclass).__name__, **dataclasses.asdict(dataclass)}


def _code_sha256() -> str:
    """Of the code that decides weights: every file in edit/."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "edit").glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _commit() -> str:
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
