"""What may be compared: runs of one model, one edit set and one evaluation, each method under a name that says how it
differs from the others; and their curves, relative to the unedited model."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from afteredit.analysis import statistics
from afteredit.analysis.summary import summarise
from afteredit.analysis.tidy import Run, at, paired

log = logging.getLogger(__name__)
Of = Callable[[Mapping[str, Any]], float]  # from a checkpoint's row to what is drawn
# What a method's runs may differ in and still be one line: nothing but the seed, and what no weight depends on.
NOT_OF_A_METHOD = ("model", "edits", "task", "tracker", "harness", "limit", "data", "held_out", "held_out_tokens",
                   "runs", "resume", "replay", "seed", "n_edits", "eval_every", "device", "setting", "on_collapse",
                   "collapse_perplexity")  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """Runs that were measured alike; by method, in the order of the methods' names."""

    title: str
    runs: Mapping[str, Sequence[Run]]

    @property
    def first(self) -> Run:
        return next(iter(self.runs.values()))[0]

    @cached_property
    def chance(self) -> dict[str, float]:
        """By ability; NaN where neither the results nor the config say it."""
        stored = self.first.rows[0].get("chance", {})
        return {name: float(stored.get(name, at(self.first.config, f"task.{name}.chance", math.nan)))
                for name in self.first.abilities}  # fmt: skip

    @cached_property
    def measurable(self) -> list[str]:
        """Abilities whose unedited score is above chance with its whole interval, as the runs themselves found."""
        firsts = [run.rows[0] for runs in self.runs.values() for run in runs]
        found = [row["measurable"] for row in firsts if "measurable" in row]
        if not found:
            log.warning("%s: no run says which abilities are measurable; none is taken to be", self.title)
        return [name for name in (found or [[]])[0] if name in self.chance and not math.isnan(self.chance[name])]

    def ability_title(self, name: str) -> str:
        return str(at(self.first.config, f"task.{name}.title") or name)

    def base(self, ability: str) -> float:
        return float(self.first.rows[0][f"ability/{ability}"])

    def share(self, ability: str) -> Of:
        """From a row to what it has left of the ability: 1 all that the unedited model has, 0 chance."""
        chance, base, score = self.chance[ability], self.base(ability), number(f"ability/{ability}")
        return lambda row: (score(row) - chance) / (base - chance)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """What is drawn with a band: per method and checkpoint that all its runs have, the mean over runs and the 95 %
        interval over examples.  `curve` is ability/<name> and …/gold_nll (change since 0 edits) or retained (share)."""
        points = []
        for label, runs in self.runs.items():
            for n_edits in common_checkpoints(runs):
                points += [{"method": label, "n_edits": n_edits, "n_runs": len(runs), **point}
                           for point in self._points(runs, n_edits)]  # fmt: skip
        return pd.DataFrame(points, columns=["method", "n_edits", "n_runs", "curve", "value", "low", "high"])

    @cached_property
    def summaries(self) -> pd.DataFrame:
        """Per run and ability, and for `retained`: area, left, edits until 10 % and 50 % are lost (NaN: never)."""
        return pd.DataFrame([
            {"method": label, "run": run.name, "seed": run.seed, "n_edits": run.n_edits, "ability": name,
             "collapsed_at": run.collapsed_at, **{key: summary.get(f"summary/{name}/{key}", math.nan) for key in
                                 ("area", "left", "edits_until_10_percent_lost", "edits_until_50_percent_lost")}}
            for label, runs in self.runs.items() for run in runs
            for summary in [self._summary(run)] for name in ("retained", *self.measurable)
        ])  # fmt: skip

    def _summary(self, run: Run) -> dict[str, float]:
        return summarise([{**run.rows[0], "measurable": self.measurable}, *run.rows[1:]], self.chance)

    def _points(self, runs: Sequence[Run], n_edits: int) -> list[dict[str, Any]]:
        points, all_pairs = [], {}
        rows = [(run.rows[0], row) for run in runs if (row := run.row(n_edits))]
        for name in self.first.abilities:
            for key, gold in ((f"ability/{name}", False), (f"ability/{name}/gold_nll", True)):
                if all(key in row for both in rows for row in both):
                    pairs = paired(runs, name, n_edits, gold)
                    value = sum(after[key] - before[key] for before, after in rows) / len(rows)
                    interval = statistics.change_interval(*pairs) if pairs else (math.nan, math.nan)
                    points.append(_point(key, value, interval))
                    if pairs and not gold:
                        all_pairs[name] = pairs
        kept = [row["ability/retained"] for _, row in rows if "ability/retained" in row]
        if len(kept) == len(rows):
            interval = math.nan, math.nan
            if self.measurable and set(self.measurable) <= set(all_pairs):
                above = {name: self.base(name) - self.chance[name] for name in self.measurable}
                interval = statistics.retained_interval({name: all_pairs[name] for name in above}, above)
            points.append(_point("retained", sum(kept) / len(kept), interval))
        return points


def comparisons(runs: Sequence[Run]) -> list[Comparison]:
    """One per model, edit set, setting and evaluation; numbers of different ones never meet in a picture."""
    together: dict[str, list[Run]] = {}
    for run in runs:
        together.setdefault(_measured_alike(run), []).append(run)
    return [Comparison(title, _by_method(own)) for title, own in sorted(together.items())]


def common_checkpoints(runs: Sequence[Run]) -> list[int]:
    """The numbers of edits at which every one of `runs` was measured."""
    return sorted(set.intersection(*({int(row["n_edits"]) for row in run.rows} for run in runs)))


def number(key: str, scale: float = 1) -> Of:
    """From a row to its number under `key`, NaN where it has none."""
    return lambda row: scale * float(row.get(key, math.nan))


def mean_over(runs: Sequence[Run], n_edits: int, of: Of) -> float:
    """NaN where a run has no such row or value."""
    rows = [run.row(n_edits) for run in runs]
    return sum(math.nan if row is None else of(row) for row in rows) / len(rows)


def _point(curve: str, value: float, interval: tuple[float, float]) -> dict[str, Any]:
    return {"curve": curve, "value": value, "low": interval[0], "high": interval[1]}


def _measured_alike(run: Run) -> str:
    config = run.config
    parts = [run.model, at(config, "edits.name"), at(config, "setting")]
    source = at(config, "model.source")
    if source and parts[0] == "hf":  # the name of every model that has no file of its own
        parts[0] = source
    limit = at(config, "limit")
    rows = f"data {at(config, 'data')}" + (f", {limit} rows each" if limit else "")
    return " · ".join(
        [*(str(part) for part in parts if part), rows, f"evaluation {run.evaluation or _evaluation(run)}"]
    )


def _evaluation(run: Run) -> str:
    """For runs whose results file does not say it."""
    keys = ("task", "harness", "limit", "data", "held_out", "held_out_tokens")
    text = json.dumps([at(run.config, key) for key in keys], sort_keys=True, default=str)
    return "of " + hashlib.sha256(text.encode()).hexdigest()[:8]


def _by_method(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """By label: the method's name, and in brackets the values in which runs of that name differ."""
    flat = {id(run): {key: value for key, value in _flat(run.config)
                      if key.split(".")[0] not in NOT_OF_A_METHOD} for run in runs}  # fmt: skip
    labelled: dict[str, list[Run]] = {}
    for run in runs:
        own = flat[id(run)]
        others = [flat[id(other)] for other in runs if other.method == run.method]
        differing = [key for key in sorted(set().union(*others)) if any(o.get(key) != own.get(key) for o in others)]
        values = ", ".join(f"{key.rpartition('.')[2]}={own.get(key)}" for key in differing)
        labelled.setdefault(f"{run.method} ({values})" if values else run.method, []).append(run)
    return {label: sorted(labelled[label], key=lambda run: (run.seed, run.name)) for label in sorted(labelled)}


def _flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    pairs = []
    for key, value in config.items():
        path = f"{prefix}{key}"
        pairs += _flat(value, f"{path}.") if isinstance(value, Mapping) else [(path, str(value))]
    return pairs
