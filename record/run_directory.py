"""One run's directory: what decides its weights names it; what evaluates it names its results files."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

from afteredit.edit.method import Prepared
from afteredit.edit.request import EditRequest
from afteredit.evaluate.abilities.ability import Ability
from afteredit.evaluate.abilities.build import rows_sha256, shipped_abilities
from afteredit.evaluate.inference.held_out import held_out_text
from afteredit.evaluate.retention import measurable, retained_mean
from afteredit.launch.experiment import Experiment
from afteredit.model.lm import LM
from afteredit.record.environment import Environment, commit
from afteredit.record.journal import Journal, request_of
from afteredit.record.results import Results
from afteredit.record.settings import OnCollapse, Resume
from afteredit.record.tracker import Tracker
from afteredit.store.atomic_files import make_folder, write_atomically
from afteredit.store.checked_lines import read_checked, write_checked
from afteredit.store.code_version import differences, evaluator, evaluator_name
from afteredit.store.errors import BadInput
from afteredit.store.user_cache import content_hash

log = logging.getLogger(__name__)
N_FIRST_FACTS = 20


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
            make_folder(folder)
        except OSError as problem:
            raise BadInput(f"runs={s.runs}: the run directory cannot be made there: {problem}") from None
        run = cls(x, folder)
        try:
            with run._in_use():
                run.environment.keep(lm, run.journal.n_edits, x.settings.resume)
        except BadInput:
            run.journal.close()
            raise
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
        self.environment = Environment(folder)
        with self._in_use():
            fall_back = s.resume is Resume.whole and x.replay.run is None  # a replay changes no edit
            self.journal = Journal(folder, fall_back=fall_back)
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
        """Raises BadInput where the journal holds other edits than `batches` begins with, or rows that are missing
        would stand beside others that another evaluator measured."""
        for index, batch in enumerate(batches[: self.journal.n_batches]):
            self.journal.refuse_other_edits(index, batch)
        borders = [0, *accumulate(map(len, batches))]
        collapsed, end = self.collapsed_at, borders[-1]
        if collapsed is not None and self.stops_at(collapsed):
            end = collapsed
        wanted = [n for n in borders if n == end or (n < end and n % self.x.settings.eval_every == 0)]
        missing = [n for n in wanted if not self.results.has(n)]
        mixed = self.mixed() if missing else None
        if mixed and self.x.settings.resume is not Resume.force:
            raise BadInput(f"{mixed}; move that file away to measure every checkpoint again (all edits are kept), or "
                           "add resume=force to go on in it: every row names its evaluator")  # fmt: skip
        if mixed:
            log.warning("%s; every row names its evaluator", mixed)
        return self.journal.n_edits >= end and not missing

    def mixed(self) -> str | None:
        """In words, that and why new rows would not be measured as those in the results file were."""
        others = {row["n_edits"]: row["evaluator"] for row in self.results.rows if row["evaluator"] != evaluator_name()}
        if not others:
            return None
        known = self.environment["evaluators"]
        changed = sorted({differences(known.get(name, {}), evaluator()) for name in others.values()})
        return (f"{self.results.path} holds rows (n_edits {', '.join(map(str, others))}) that another evaluator "
                f"measured; changed since: {'; '.join(changed)}")  # fmt: skip

    @property
    def collapsed(self) -> list[int]:
        """After which numbers of edits an update held NaN or infinity or could not be made, or a checkpoint's
        perplexity was past its limit."""
        found = {r["n_edits"] for r in self.journal.records if "collapsed" in r["diagnostics"]}
        if self.results.has(0):
            limit = self.x.settings.collapse_perplexity * self.results.row(0)["drift/perplexity"]
            found |= {row["n_edits"] for row in self.results.rows if not row["drift/perplexity"] <= limit}
        return sorted(n for n in found if n <= self.x.settings.n_edits)

    @property
    def collapsed_at(self) -> int | None:
        """The first of them.  None in setting=single, where no edit is made on a collapsed model."""
        single = self.x.settings.single
        return None if single else min(self.collapsed, default=None)

    def stops_at(self, n_edits: int) -> bool:
        """Is nothing to be written after so many edits, because the model has collapsed and on_collapse=stop?  Never in
        setting=single."""
        stop = self.x.settings.on_collapse is OnCollapse.stop
        return stop and self.collapsed_at is not None and n_edits >= self.collapsed_at

    def with_contexts(self, prepared: Prepared) -> Prepared:
        """The run's own context prefixes where it has them, else the new ones, stored."""
        path = self.folder / "prefixes.json"
        if self.journal.n_batches:
            stored = read_checked(path)
            if stored["constants"] != dict(prepared.hashes):
                raise BadInput(
                    f"{self.folder} was begun with constants {stored['constants']}, the config now gives "
                    f"{dict(prepared.hashes)} (another text behind the second moment?); restore it, or change "
                    "runs=<folder> to start over"
                )
            return dataclasses.replace(prepared, contexts=tuple(stored["contexts"]))
        write_checked(path, {"contexts": list(prepared.contexts), "constants": dict(prepared.hashes)})
        return prepared

    def keep_first_facts(self, requests: Sequence[EditRequest]) -> None:
        """Stores what the unedited model is measured on: the first of all `requests`, however many of them are edits
        of this run, so that neither more edits nor a replay changes what the row at 0 edits says.  Raises BadInput
        where others are stored."""
        path, first = self.folder / "first_facts.json", list(requests[:N_FIRST_FACTS])
        if not path.exists() and not self.journal.n_batches:
            write_checked(path, {"requests": [asdict(request) for request in first]})
        if self.first_facts != first:
            raise BadInput(f"{path} holds other facts than the edit set begins with now; restore the edit set, or "
                           "change runs=<folder> to start over")  # fmt: skip

    @cached_property
    def first_facts(self) -> list[EditRequest]:
        return [request_of(stored) for stored in read_checked(self.folder / "first_facts.json")["requests"]]

    def add_checkpoint(self, n_edits: int, row: Mapping[str, float], samples: Sequence[Any], sha256: str) -> None:
        full = {"n_edits": n_edits, "weights_sha256": sha256, "evaluator": evaluator_name(), **row}
        chance = {name: ability.chance for name, ability in self.abilities.items()}
        if n_edits == 0:
            full["chance"], full["measurable"] = chance, measurable(samples, chance)
        base = self.results.row(0) if self.results.has(0) else full
        retained = retained_mean(full, base, base.get("measurable", []), chance)
        if retained is not None:
            full["ability/retained"] = retained
        self.environment.note("evaluators", {**self.environment["evaluators"], evaluator_name(): evaluator()})
        self.results.append(full, [{"n_edits": n_edits, **sample} for sample in samples])

    def tracker(self) -> Tracker:
        """Nothing can be refused any more: from here on the directory is this config's."""
        from omegaconf import OmegaConf

        with self._in_use():
            write_atomically(self.folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(self.x.resolved)).encode())
        run_id = f"{self.folder.name}-{self.results.digest}"
        edited = self.journal.n_edits
        measured = max((row["n_edits"] for row in self.results.rows if row["n_edits"] <= edited), default=-1)
        tracker = Tracker(self.x.tracker, self.folder, run_id, self._tracked_config(), commit(), edited, measured)
        ids, noted = {**tracker.ids, "results": self.results.digest}, self.environment["wandb"]
        if tracker.ids and ids not in noted:
            self.environment.note("wandb", [*noted, ids])
        return tracker

    def _tracked_config(self) -> dict[str, Any]:
        """Top-level keys with the groups' chosen entries by name, as a sweep names them; all of it under `resolved`;
        and the command's `overrides`, with which an agent is to begin this run again (evaluate/agent.py)."""
        x = self.x
        names = {group: name for group, name in x.names.items() if name != "None"} | {"task": list(x.tasks)}
        return {**x.resolved, **names, "overrides": x.overrides, "resolved": x.resolved, "commit": commit(),
                "evaluation": self.results.digest}  # fmt: skip

    def commands_to_look_further(self, tracker: Tracker) -> list[str]:
        ids = tracker.ids
        if not ids:
            return []
        if ids["url"]:
            again = [f"upload   wandb sync --include-online {ids['folder']}",
                     "         that sends every number; the same command again sends files and table too"]  # fmt: skip
            return [f"W&B      {ids['url']}", *([] if tracker.delivered else again)]
        return [f"look     wandb leet {ids['folder']}", f"upload   wandb sync {ids['folder']}"]

    def refuse_other_model(self, sha256: str) -> None:
        """`sha256`: of the matrices to edit, unedited.  Raises BadInput where the stored row at 0 edits has another."""
        stored = self.results.row(0)["weights_sha256"] if self.results.has(0) else sha256
        if stored != sha256:
            raise BadInput(f"model.source={self.x.model.source} is not the model that {self.folder} edited: unedited, "
                           f"its matrices are {sha256[:16]} here and were {stored[:16]}; give the same weights, or "
                           "change runs=<folder> to start over")  # fmt: skip

    def compare_weights(self, n_edits: int, sha256: str) -> None:
        """Warns where weights made from the journal are not those that a stored row was measured on."""
        stored = self.results.row(n_edits)["weights_sha256"]
        if stored != sha256:
            log.warning("after %d edits the weights are %s here and were %s when measured: hardware, threads "
                        "or versions differ from environment.json", n_edits, sha256[:16], stored[:16])  # fmt: skip


def _values(dataclass: Any) -> dict[str, Any]:
    return {"class": type(dataclass).__name__, **dataclasses.asdict(dataclass)}
