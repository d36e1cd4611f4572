"""Runs that may be compared, by method, with their curves relative to the unedited model."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from afteredit.analysis.numbers import statistics
from afteredit.analysis.numbers.method_names import by_method, comparison_title, edit_set, model_in_words
from afteredit.analysis.numbers.paired_examples import paired
from afteredit.analysis.numbers.run_summary import summarise
from afteredit.analysis.numbers.run_values import Value, common_checkpoints, number
from afteredit.analysis.numbers.single_edits import averaged
from afteredit.analysis.read.run import Run, at
from afteredit.evaluate.retention import of_one_scoring, share_left

log = logging.getLogger(__name__)
NO_INTERVAL = (math.nan, math.nan)


@dataclass(frozen=True)
class Comparison:
    """Holds runs that were measured alike, by method, in the order of the methods' names."""

    title: str
    runs: Mapping[str, Sequence[Run]]

    @property
    def first(self) -> Run:
        return next(iter(self.runs.values()))[0]

    @property
    def single(self) -> bool:
        """Tells whether the runs have setting=single: their numbers are means over models of one batch of edits."""
        return self.first.single

    @cached_property
    def chance(self) -> dict[str, float]:
        return self.first.chance

    @cached_property
    def measurable(self) -> list[str]:
        """Returns the abilities whose unedited score is above chance with its whole interval, as the runs say it."""
        stored = [run.rows[0]["measurable"] for run in self._all_runs if "measurable" in run.rows[0]]
        if not stored:
            log.warning("%s: no run says which abilities are measurable; none is taken to be", self.title)
        return [name for name in (stored or [[]])[0] if name in self.chance and not math.isnan(self.chance[name])]

    @cached_property
    def in_retained(self) -> list[str]:
        """Returns the abilities that `ability/retained` is the mean of."""
        return of_one_scoring(self.measurable, self.first.abilities)

    @cached_property
    def checkpoints(self) -> list[int]:
        """Returns the numbers of edits, above 0, at which all runs of some method were measured."""
        return sorted({n for runs in self.runs.values() for n in common_checkpoints(runs) if n > 0})

    def chosen_checkpoints(self, wanted: Sequence[int], most: int = 3) -> list[int]:
        """Returns those of `wanted` that were measured; where it is empty, the last one and others evenly before it."""
        measured = self.checkpoints
        if wanted or len(measured) <= most:
            return [n for n in measured if not wanted or n in wanted]
        return [measured[round((i + 1) * len(measured) / most) - 1] for i in range(most)]

    @property
    def _all_runs(self) -> list[Run]:
        return [run for runs in self.runs.values() for run in runs]

    def ability_title(self, name: str) -> str:
        return str(at(self.first.config, f"task.{name}.title") or name)

    @property
    def caption(self) -> str:
        """Returns model, edit set, rows of each ability and seeds, as one line to stand under a picture."""
        runs, config = self._all_runs, self.first.config
        sizes = {len(run.examples[name, 0]) for run in runs for name in run.abilities if (name, 0) in run.examples}
        seeds = sorted({run.seed for run in runs})
        listed = f"{seeds[0]}–{seeds[-1]}" if len(seeds) > 3 else ", ".join(map(str, seeds))
        order = at(config, "edits.order")
        parts = [model_in_words(self.first), f"edits: {edit_set(self.first)}" + (f" in {order} order" if order else ""),
                 f"setting: {at(config, 'setting', 'sequential')}"]  # fmt: skip
        if self.single:
            parts[-1] += f", mean over {_range([len(run.models) for run in runs])} models"
        if sizes:
            rows = "embedded rows" if at(config, "data") == "mini" else "rows"  # embedded: not those of the set named
            parts.append(f"{_range(sizes)} {rows} per ability")
        return " · ".join([*parts, f"seed{'s' * (len(seeds) > 1)} {listed}"])

    def base(self, ability: str) -> float:
        """Returns the unedited model's score, the mean over all runs."""
        scores = [_base(run, ability) for run in self._all_runs]
        return sum(scores) / len(scores)

    def share(self, ability: str) -> Value:
        """Returns a function that reads what a row has left of the ability: 1 is its run's unedited score, 0 chance."""
        chance, score = self.chance[ability], number(f"ability/{ability}")
        return lambda run, row: share_left(score(run, row), _base(run, ability), chance)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """Returns what is drawn with a band: the mean over runs and the 95 % interval over examples.

        One row per method, checkpoint that all its runs have, and curve: ability/<name> and …/gold_nll (change since
        0 edits) or retained (share).
        """
        points = [{"method": label, "n_edits": n_edits, "n_runs": len(runs), **point}
                  for label, runs in self.runs.items() for n_edits in common_checkpoints(runs)
                  for point in self._points(runs, n_edits)]  # fmt: skip
        return pd.DataFrame(points, columns=["method", "n_edits", "n_runs", "curve", "value", "low", "high"])

    @cached_property
    def summaries(self) -> pd.DataFrame:
        """Returns one row per run and ability, and `retained`: area, left, edits until 10 % and 50 % are lost (NaN:
        never).  With setting=single: how many models, how many of them collapsed, what is left in the mean, at least
        and at most."""
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
        share = number("ability/retained") if name == "retained" else self.share(name)
        left = [share(run, row) for row in run.models] or [math.nan]
        return {"models": len(run.models), "collapsed": run.n_collapsed, "left": sum(left) / len(left),
                "left_min": min(left), "left_max": max(left)}  # fmt: skip

    def _points(self, runs: Sequence[Run], n_edits: int) -> list[dict[str, Any]]:
        points, pairs_by_ability = [], {}
        rows = [(run.rows[0], row) for run in runs if (row := run.row(n_edits))]
        for name in self.first.abilities:
            for key, gold in ((f"ability/{name}", False), (f"ability/{name}/gold_nll", True)):
                if all(key in row for both in rows for row in both):
                    pairs = paired(runs, name, n_edits, gold)
                    value = sum(after[key] - before[key] for before, after in rows) / len(rows)
                    points.append(_point(key, value, statistics.change_interval(*pairs) if pairs else NO_INTERVAL))
                    if pairs and not gold:
                        pairs_by_ability[name] = pairs
        retained = [row["ability/retained"] for _, row in rows if "ability/retained" in row]
        if len(retained) == len(rows):
            interval = self._retained_interval(runs, pairs_by_ability)
            points.append(_point("retained", sum(retained) / len(retained), interval))
        return points

    def _retained_interval(self, runs: Sequence[Run], pairs: Mapping[str, statistics.Paired]) -> tuple[float, float]:
        if not self.in_retained or not set(self.in_retained) <= set(pairs):
            return NO_INTERVAL
        above_chance = {name: [_base(run, name) - self.chance[name] for run in runs] for name in self.in_retained}
        return statistics.retained_interval({name: pairs[name] for name in above_chance}, above_chance)


def comparisons(runs: Sequence[Run]) -> list[Comparison]:
    """Returns one per model, edit set, setting and evaluation; numbers of different ones never meet in a picture."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(comparison_title(run), []).append(averaged(run) if run.single else run)
    return [Comparison(title, by_method(group)) for title, group in sorted(groups.items())]


def _range(numbers: Collection[int]) -> str:
    return f"{min(numbers)}" if min(numbers) == max(numbers) else f"{min(numbers)}–{max(numbers)}"


def _point(curve: str, value: float, interval: tuple[float, float]) -> dict[str, Any]:
    return {"curve": curve, "value": value, "low": interval[0], "high": interval[1]}


def _base(run: Run, ability: str) -> float:
    return float(run.rows[0][f"ability/{ability}"])
