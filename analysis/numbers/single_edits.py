"""A run with setting=single: each measured model holds one batch of edits, so what is left is a mean over models.

Nothing adds up from one model to the next: there is no curve, hence no area, no edits until a loss and no collapse.  A
model whose update held NaN is the unedited one, and counted as it is; how many collapsed is said beside the means.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table

from afteredit.analysis.numbers.run_summary import Results, paired_examples, success_table
from afteredit.analysis.read.run_folders import Run
from afteredit.evaluate.intervals import change_interval

COVERED = "editing/immediate/n_edits"  # how many edits a row's editing/immediate speaks of
IMMEDIATE = "editing/immediate/"
PERPLEXITY = "drift/perplexity"
OF_THE_MODEL = ("ability/", "drift/", "editing/retained/")
Rows = Sequence[Mapping[str, Any]]


def mean_row(models: Rows, n_edits: int) -> dict[str, Any]:
    """The row of a model with `n_edits` edits, as each of `models` is: the mean over those that have the number.
    Where editing/immediate speaks of several batches it is the mean over all edits."""
    row: dict[str, Any] = {"n_edits": n_edits}
    for key in _keys(models, OF_THE_MODEL):
        values = [model[key] for model in models if key in model]
        row[key] = sum(values) / len(values)
    covering = each_edit_once(models)
    for key in _keys(covering, IMMEDIATE):
        known = [(model[COVERED], model[key]) for model in covering if key in model]
        covered = sum(n for n, _ in known)
        row[key] = covered if key == COVERED else sum(n * value for n, value in known) / covered
    return row


def each_edit_once(models: Rows) -> list[Mapping[str, Any]]:
    """From the last row back, those whose editing/immediate together speak of every edit once: rows overlap where a
    run went on with another eval_every, or was measured at other places later."""
    kept: list[Mapping[str, Any]] = []
    for model in reversed(models):
        if COVERED in model and (not kept or model["n_edits"] <= kept[-1]["n_edits"] - kept[-1][COVERED]):
            kept.append(model)
    return kept


def averaged(run: Run) -> Run:
    """The run with one row beside the unedited model's: a model's after its one batch, mean over `models`."""
    models = run.rows[1:]
    if not models:
        return run
    return replace(run, rows=[run.rows[0], mean_row(models, int(run.config.get("batch_size", 1)))], models=models)


def summarise_models(models: Rows, collapsed: Collection[int]) -> dict[str, float]:
    """Every metric's mean; of abilities and perplexity, the smallest and the largest too.  `collapsed`: after which
    numbers of edits the run found a collapse."""
    summary: dict[str, float] = {"summary/models": len(models), "summary/collapsed_models": _n_in(models, collapsed)}
    for key, mean in mean_row(models, 0).items():
        if not key.endswith("n_edits"):
            summary[f"summary/{key}_mean"] = mean
        if (key.startswith("ability/") and key.count("/") == 1) or key == PERPLEXITY:
            values = [model[key] for model in models if key in model]
            summary |= {f"summary/{key}_min": float(np.min(values)), f"summary/{key}_max": float(np.max(values))}
    return summary


def models_table(results: Results, chance: Mapping[str, float], collapsed: Collection[int]) -> Table:
    """Every ability of the unedited model and the mean over all edited ones, its change with the 95 % interval (paired
    over examples, each with its mean over the models) and the worst model's; then as in a sequential run."""
    first, *models = results.rows
    mean = mean_row(models, 0)
    n_collapsed = _n_in(models, collapsed)
    n_others = len(collapsed) - n_collapsed
    others = f"; NaN in the update of {n_others} that {'was' if n_others == 1 else 'were'} not measured"
    said = f"{n_collapsed} of {len(models)} models collapsed{others if n_others else ''}" if collapsed else None
    table = Table(title=f"mean over the {len(models)} models measured, each edited on its own", caption=said)
    for column in ("", "chance", "at 0", "mean", "change", "95 % interval", "worst"):
        table.add_column(column, justify="left" if not column else "right")
    names = [name for name in chance if f"ability/{name}" in first and f"ability/{name}" in mean]
    if names:
        before, after = pd.read_parquet(results.samples_path(0)), _mean_examples(results, models)
    for name in names:
        key = f"ability/{name}"
        low, high = change_interval(*paired_examples(before, after, name))
        mark = "" if name in first.get("measurable", []) else " (not measurable)"
        scores = (f"{first[key]:.3f}", f"{mean[key]:.3f}", f"{mean[key] - first[key]:+.3f}")
        table.add_row(name + mark, f"{chance[name]:.2f}", *scores, f"[{low:+.3f}, {high:+.3f}]",
                      f"{_worst(models, key):.3f}")  # fmt: skip
    table.add_section()
    for key, label in (("ability/retained", "retained, all measurable"), (PERPLEXITY, "perplexity")):
        if key in first and key in mean:
            table.add_row(label, "", f"{first[key]:.3f}", f"{mean[key]:.3f}", f"{mean[key] - first[key]:+.3f}", "",
                          f"{_worst(models, key):.3f}")  # fmt: skip
    return table


def models_editing_table(results: Results) -> Table:
    """Editing success right after each edit, over all edits, and of the measured models (in brackets: the unedited
    model's)."""
    first, *models = results.rows
    mean = mean_row(models, 0)
    title = f"editing success: immediate of {mean.get(COVERED, 0)} edits, retained of {len(models)} models"
    return success_table(f"{title} (unedited model)", first, mean)


def _worst(models: Rows, key: str) -> float:
    """NaN where a model has NaN."""
    values = [model[key] for model in models if key in model]
    return float(np.max(values) if key == PERPLEXITY else np.min(values))


def _n_in(models: Rows, collapsed: Collection[int]) -> int:
    return sum(model["n_edits"] in collapsed for model in models)


def _mean_examples(results: Results, models: Rows) -> pd.DataFrame:
    """Every example's numerator and denominator, mean over the models."""
    frames = [pd.read_parquet(results.samples_path(model["n_edits"])) for model in models]
    own = pd.concat([frame[frame["kind"] == "ability"] for frame in frames])
    return own.groupby(["kind", "name", "doc_id"], as_index=False)[["numerator", "denominator"]].mean()


def _keys(rows: Iterable[Mapping[str, Any]], prefixes: str | tuple[str, ...]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row if key.startswith(prefixes)))
