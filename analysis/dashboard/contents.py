"""What the runs of a W&B project or sweep hold: the numbers that they logged, and the config keys that part them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any

from afteredit.analysis.read.run import at
from afteredit.store.line_shapes import abilities_of

OF_A_CURVE = ("setting", "batch_size", "dtype", "model", "constraint", "edits", "evaluation")  # beside the method
# Groups of keys: runs of one name and model may differ in a key of theirs; empty: in any.
NAMED = {"method": (), "constraint": (), "edits": (), "model": ("source", "revision", "start_token", "prompt")}
CHANCE = "chance"


@dataclass(frozen=True)
class Contents:
    """Holds what a dashboard can show: it names no number that no run has."""

    entity: str
    project: str
    sweep: str | None
    metrics: Set[str]  # in the history of some run
    summary: Set[str]  # the numbers that a run's end came down to
    tables: Set[str]  # in the summary of some run
    titles: Mapping[str, str]  # of abilities
    curve_keys: list[str]  # of the config; runs that have the same values there are one curve, whatever their seeds

    def logged(self, keys: Iterable[str]) -> list[Any]:
        """Returns those of `keys` that some run's history or summary holds, in their order."""
        return [key for key in keys if key in self.metrics or key in self.summary]

    @property
    def abilities(self) -> list[str]:
        """The abilities measured, in the order of their titles."""
        return sorted(abilities_of(self.metrics), key=lambda name: self.titles.get(name, name))

    @property
    def layers(self) -> list[str]:
        """The edited layers, in their order."""
        names = {key.split("/")[1] for key in self.metrics if key.startswith("drift/") and key.count("/") == 2}
        return sorted(names, key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name))


def contents(entity: str, project: str, sweep: str | None, tracked: Iterable[Any]) -> Contents:
    """Returns what W&B's runs `tracked` hold; those that logged no edit count yet are left out."""
    runs = [run for run in tracked if "n_edits" in run.summary]
    summaries = [(key, value) for run in runs for key, value in run.summary.items() if key[0] != "_"]
    numbers = {key for key, value in summaries if _is_number(value)}
    ends = {key for key in numbers if key.startswith("summary/")}
    configs = [dict(run.config) for run in runs]
    return Contents(
        entity, project, sweep, numbers - ends, ends,
        {key for key, value in summaries if hasattr(value, "get") and value.get("_type") == "table-file"},
        {name: at(task, "title") or name for config in configs for name, task in _tasks(config).items()},
        curve_keys(configs),
    )  # fmt: skip


def curve_keys(configs: Iterable[Mapping[str, Any]]) -> list[str]:
    """Returns `method` and the other config keys in which runs differ that must not be averaged: all but the seed's."""
    configs = list(configs)
    keys = ["method", *(key for key in OF_A_CURVE if _differ(configs, key))]
    for group, only in NAMED.items():
        by_name: dict[str, list[Mapping[str, Any]]] = {}
        for config in configs:
            by_name.setdefault(f"{config.get(group)} {config.get('model')}", []).append(config)
        nodes = [node for config in configs if isinstance(node := at(config, f"resolved.{group}"), Mapping)]
        inner = {key for node in nodes for key, value in node.items() if not isinstance(value, Mapping)}
        paths = [f"resolved.{group}.{key}" for key in sorted(set(only) or inner)]
        keys += [path for path in paths if any(_differ(alike, path) for alike in by_name.values())]
    return keys


def _differ(configs: Iterable[Mapping[str, Any]], key: str) -> bool:
    return len({str(at(config, key)) for config in configs}) > 1


def _tasks(config: Mapping[str, Any]) -> Mapping[str, Any]:
    tasks = at(config, "resolved.task")
    return tasks if isinstance(tasks, Mapping) else {}


def _is_number(value: Any) -> bool:
    """Tells whether W&B holds a number there; it gives NaN and infinity as text."""
    return value in ("NaN", "Infinity", "-Infinity") or (isinstance(value, int | float) and not isinstance(value, bool))
