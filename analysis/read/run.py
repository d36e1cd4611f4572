"""One run under one evaluation, as data: its config, its rows, its examples and its edits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import pandas as pd

from afteredit.analysis.read.made import Made
from afteredit.record.collapse import collapses
from afteredit.record.terminal import visible
from afteredit.store.line_shapes import abilities_of


@dataclass(frozen=True)
class Run:
    """Holds one run under one evaluation configuration; every reader, of folders or of W&B, makes the same `Run`."""

    name: str  # the name of its directory: <method>-<model>-<hash>
    evaluation: str  # the digest that names the results file: it says what was measured and how
    config: Mapping[str, Any]  # as stored
    rows: Sequence[Mapping[str, Any]]  # one per checkpoint, ordered by n_edits; the first is the unedited model's
    samples: pd.DataFrame = field(default_factory=pd.DataFrame)  # every example at every checkpoint; may be empty
    edits: Sequence[Mapping[str, Any]] = ()  # one record per update, with the success right after it; may be empty
    reported_collapse: int | None = None  # after how many edits the run said that it collapsed, where `edits` is empty
    fingerprint: str | None = None  # of the unedited model; None where an older version wrote the run
    facts: str | None = None  # SHA-256 of the edit set; None likewise
    weights: str | None = None  # the types that a GGUF file held them in; None likewise, and for plain numbers
    made: Made = Made()  # by which command and version of this program, and when
    faults: Sequence[str] = ()  # sentences about files of the directory that do not match their checksums
    environment: Mapping[str, Any] = field(default_factory=dict)  # environment.json, and what was made of it
    models: Sequence[Mapping[str, Any]] = ()  # setting=single: the rows that the last of `rows` is the mean of

    @property
    def method(self) -> str:
        """Returns `rome`, or `rome+rect` where a constraint is set."""
        target = at(self.config, "method._target_")
        name, separator, _ = self.name.rpartition(f"-{self.model}-")
        if not separator:  # a renamed directory
            name = target.split(".")[-2] if target else at(self.config, "method", self.name)
        constraint = (at(self.config, "constraint._target_") or "").rpartition(".")[2]
        return name if constraint in ("", "Unconstrained") else f"{name}+{constraint.lower()}"

    @property
    def model(self) -> str:
        """Returns the model's name; a sweep agent's config holds the name alone in place of the model's keys."""
        model = self.config.get("model")
        return model if isinstance(model, str) else str(at(model, "name", ""))

    @property
    def seed(self) -> int:
        return int(self.config.get("seed", 0))

    @property
    def single(self) -> bool:
        """Tells whether each measured model holds one batch of edits and nothing of those before."""
        return at(self.config, "setting") == "single"

    @property
    def edited(self) -> Sequence[Mapping[str, Any]]:
        """Returns the row of every edited model that was measured."""
        return self.models or self.rows[1:]

    @property
    def n_edits(self) -> int:
        return int(self.rows[-1]["n_edits"])

    @property
    def abilities(self) -> list[str]:
        return abilities_of(self.rows[0])

    @property
    def chance(self) -> dict[str, float]:
        """Returns each ability's chance level, in the config's order; NaN where neither results nor config say it."""
        stored, tasks = self.rows[0].get("chance", {}), self.config.get("task")
        order = [*(tasks if isinstance(tasks, Mapping) else ()), *(self.config.get("harness") or ()), *self.abilities]
        return {name: float(stored.get(name, at(self.config, f"task.{name}.chance", math.nan)))
                for name in dict.fromkeys(order) if name in self.abilities}  # fmt: skip

    @property
    def collapsed(self) -> dict[int, str]:
        """Returns the numbers of edits after which the model had collapsed, in order, each with the condition met: an
        update held NaN or infinity or could not be made, or the perplexity was past its limit or not finite."""
        limit = float(self.config.get("collapse_perplexity", math.inf))
        reported = {} if self.reported_collapse is None else {self.reported_collapse: "as the run reported"}
        return dict(sorted((reported | collapses(self.edits, [self.rows[0], *self.edited], limit)).items()))

    @property
    def collapsed_at(self) -> int | None:
        """Returns the first collapse; None with setting=single, where no model is built on another."""
        return None if self.single else min(self.collapsed, default=None)

    @property
    def n_collapsed(self) -> int:
        """Returns how many of the measured models collapsed, with setting=single."""
        collapsed = self.collapsed
        return sum(row["n_edits"] in collapsed for row in self.edited)

    @property
    def n_dropped(self) -> int | None:
        """Returns how many edits were not written, their values being too long for the anchor; None without one."""
        counts = [edit["diagnostics"]["dropped"] for edit in self.edits if "dropped" in edit.get("diagnostics", {})]
        return round(sum(counts)) if counts else None

    @cached_property
    def examples(self) -> dict[tuple[str, int], pd.DataFrame]:
        """Holds, for each (ability, n_edits), numerator, denominator, gold_nll and unparseable by doc_id.

        Where the last of `rows` is the mean over models, an example's numbers are means over them too.
        """
        if "kind" not in self.samples or "doc_id" not in self.samples:
            return {}
        scores = self.samples[self.samples["kind"] == "ability"]
        if self.models:
            scores = scores.assign(n_edits=scores["n_edits"].where(scores["n_edits"] == 0, self.n_edits))
            scores = scores.groupby(["name", "n_edits", "doc_id"], as_index=False).mean(numeric_only=True)
        scores = scores.set_index("doc_id")
        return {(str(name), int(n)): frame for (name, n), frame in scores.groupby(["name", "n_edits"])}

    def row(self, n_edits: int) -> Mapping[str, Any] | None:
        return next((row for row in self.rows if row["n_edits"] == n_edits), None)

    def up_to(self, n_edits: int) -> Run:
        """Returns the run as it was after `n_edits` edits, without what came later."""
        rows, edits = ([row for row in part if row["n_edits"] <= n_edits] for part in (self.rows, self.edits))
        samples = self.samples[self.samples["n_edits"] <= n_edits] if len(self.samples) else self.samples
        return replace(self, rows=rows, edits=edits, samples=samples)


def faults(runs: Sequence[Run]) -> list[str]:
    """Returns what the readers of the runs found damaged, each once: a page names it at its top."""
    return list(dict.fromkeys(fault for run in runs for fault in run.faults))


def faults_as_markdown(runs: Sequence[Run]) -> list[str]:
    """Returns the lines of a page that name what was found damaged; none where nothing was."""
    found = [visible(fault).replace("`", "'") for fault in faults(runs)]
    if not found:
        return []
    return ["## Damaged files", "", "What does not match its checksum is left out of this page:", "",
            *(f"- `{fault}`" for fault in found), ""]  # fmt: skip


def at(config: Any, path: str, default: Any = None) -> Any:
    """Returns the value under a dotted path of keys, `default` where there is none."""
    for key in path.split("."):
        if not isinstance(config, Mapping) or key not in config:
            return default
        config = config[key]
    return config
