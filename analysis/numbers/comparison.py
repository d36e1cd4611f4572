"""What may be compared: runs of one model, one edit set and one evaluation, each method under a name that says how it
differs from the others; and their curves, relative to the unedited model."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from afteredit.analysis.numbers import statistics
from afteredit.analysis.numbers.run_summary import summarise
from afteredit.analysis.numbers.single_edits import averaged
from afteredit.analysis.read.run_folders import Run, at, paired

log = logging.getLogger(__name__)
Of = Callable[[Run, Mapping[str, Any]], float]  # from a run and its row at a checkpoint to what is drawn
# What a method's runs may differ in and still be one line: nothing but the seed, and what no weight depends on.
NOT_OF_A_METHOD = ("model", "task", "tracker", "harness", "limit", "data", "held_out", "held_out_tokens", "evaluate",
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

    @property
    def single(self) -> bool:
        """Are all runs of setting=single, and their numbers means over models that hold one batch of edits each?"""
        return self.first.single

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

    @property
    def caption(self) -> str:
        """Model, edit set, rows of each ability and seeds, as one line under a picture."""
        sizes = {len(run.examples[name, 0]) for runs in self.runs.values() for run in runs for name in run.abilities
                 if (name, 0) in run.examples}  # fmt: skip
        seeds = sorted({run.seed for runs in self.runs.values() for run in runs})
        listed = f"{seeds[0]}–{seeds[-1]}" if len(seeds) > 3 else ", ".join(map(str, seeds))
        order = at(self.first.config, "edits.order")
        parts = [_model(self.first), f"edits: {_edit_set(self.first)}" + (f" in {order} order" if order else ""),
                 f"setting: {at(self.first.config, 'setting', 'sequential')}"]  # fmt: skip
        if self.single:
            n_models = [len(run.models) for runs in self.runs.values() for run in runs]
            parts[-1] += f", mean over {_range(n_models)} models"
        if sizes:
            whose = "embedded rows" if at(self.first.config, "data") == "mini" else "rows"  # not those of the set named
            parts.append(f"{_range(sizes)} {whose} per ability")
        return " · ".join([*parts, f"seed{'s' * (len(seeds) > 1)} {listed}"])

    def base(self, ability: str) -> float:
        """The unedited model's score, mean over all runs."""
        own = [_base(run, ability) for runs in self.runs.values() for run in runs]
        return sum(own) / len(own)

    def share(self, ability: str) -> Of:
        """From a row to what it has left of the ability: 1 all that the run's unedited model has, 0 chance."""
        chance, score = self.chance[ability], number(f"ability/{ability}")
        return lambda run, row: (score(run, row) - chance) / (_base(run, ability) - chance)

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
        """Per run and ability, and for `retained`: area, left, edits until 10 % and 50 % are lost (NaN: never).  In
        setting=single: of how many models, how many of them collapsed, what is left in the mean, at least, at most."""
        return pd.DataFrame([
            {"method": label, "run": run.name, "seed": run.seed, "n_edits": run.n_edits, "ability": name,
             **(self._over_models(run, name) if self.single else self._over_edits(run, name))}
            for label, runs in self.runs.items() for run in runs for name in ("retained", *self.measurable)
        ])  # fmt: skip

    def _over_edits(self, run: Run, name: str) -> dict[str, Any]:
        summary = summarise([{**run.rows[0], "measurable": self.measurable}, *run.rows[1:]], self.chance)
        keys = ("area", "left", "edits_until_10_percent_lost", "edits_until_50_percent_lost")
        return {"collapsed_at": run.collapsed_at,
                **{key: summary.get(f"summary/{name}/{key}", math.nan) for key in keys}}  # fmt: skip

    def _over_models(self, run: Run, name: str) -> dict[str, Any]:
        of = number("ability/retained") if name == "retained" else self.share(name)
        left = [of(run, row) for row in run.models] or [math.nan]
        return {"models": len(run.models), "collapsed": run.n_collapsed, "left": sum(left) / len(left),
                "left_min": min(left), "left_max": max(left)}  # fmt: skip

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
                above = {name: [_base(run, name) - self.chance[name] for run in runs] for name in self.measurable}
                interval = statistics.retained_interval({name: all_pairs[name] for name in above}, above)
            points.append(_point("retained", sum(kept) / len(kept), interval))
        return points


def comparisons(runs: Sequence[Run]) -> list[Comparison]:
    """One per model, edit set, setting and evaluation; numbers of different ones never meet in a picture."""
    together: dict[str, list[Run]] = {}
    for run in runs:
        together.setdefault(_measured_alike(run), []).append(averaged(run) if run.single else run)
    return [Comparison(title, _by_method(own)) for title, own in sorted(together.items())]


def common_checkpoints(runs: Sequence[Run]) -> list[int]:
    """The numbers of edits at which every one of `runs` was measured."""
    return sorted(set.intersection(*({int(row["n_edits"]) for row in run.rows} for run in runs)))


def number(key: str, scale: float = 1) -> Of:
    """A row's number under `key`, NaN where it has none."""
    return lambda _run, row: scale * float(row.get(key, math.nan))


def mean_over(runs: Sequence[Run], n_edits: int, of: Of) -> float:
    """NaN where a run has no such row or value."""
    values = [math.nan if (row := run.row(n_edits)) is None else of(run, row) for run in runs]
    return sum(values) / len(values)


def _range(numbers: Collection[int]) -> str:
    return f"{min(numbers)}" if min(numbers) == max(numbers) else f"{min(numbers)}–{max(numbers)}"


def _point(curve: str, value: float, interval: tuple[float, float]) -> dict[str, Any]:
    return {"curve": curve, "value": value, "low": interval[0], "high": interval[1]}


def _base(run: Run, ability: str) -> float:
    return float(run.rows[0][f"ability/{ability}"])


def _model(run: Run) -> str:
    """`hf` is the name of every model that has no file of its own."""
    return str(at(run.config, "model.source") or run.model) if run.model == "hf" else run.model


def _edit_set(run: Run) -> str:
    """A sweep's agent leaves the group's name where its content was."""
    edits = run.config.get("edits")
    return edits if isinstance(edits, str) else str(at(edits, "name", ""))


def _measured_alike(run: Run) -> str:
    config = run.config
    parts = [_model(run), _edit_set(run), at(config, "setting")]
    limit = at(config, "limit")
    data = Path(str(at(config, "data"))).name  # of a folder its name only
    rows = f"data {data}" + (f", {limit} rows each" if limit else "")
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
    flat = {id(run): {key: value for key, value in _flat(run.config) if _tells_methods_apart(key)} for run in runs}
    labelled: dict[str, list[Run]] = {}
    for run in runs:
        own = flat[id(run)]
        others = [flat[id(other)] for other in runs if other.method == run.method]
        differing = [key for key in sorted(set().union(*others)) if any(o.get(key) != own.get(key) for o in others)]
        values = ", ".join(f"{key.rpartition('.')[2]}={own.get(key)}" for key in differing)
        labelled.setdefault(f"{run.method} ({values})" if values else run.method, []).append(run)
    return {label: sorted(labelled[label], key=lambda run: (run.seed, run.name)) for label in sorted(labelled)}


def _tells_methods_apart(key: str) -> bool:
    """So does what the list does not know.  The edit set's name does not: it is in the title."""
    return key.split(".")[0] not in NOT_OF_A_METHOD and key not in ("edits", "edits.name")


def _flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    pairs = []
    for key, value in config.items():
        path = f"{prefix}{key}"
        pairs += _flat(value, f"{path}.") if isinstance(value, Mapping) else [(path, str(value))]
    return pairs
