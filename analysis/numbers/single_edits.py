"""The numbers of a run with setting=single, in which each measured model holds one batch of edits: means over models.

Nothing adds up from one model to the next, so there is no curve, hence no area, no edits until a loss and no collapse.
A model whose update held NaN is the unedited one and counts as it is; how many collapsed is said beside the means.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from afteredit.analysis.read.run import Run

COVERED = "editing/immediate/n_edits"  # the number of edits that a row's editing/immediate is the mean of
IMMEDIATE = "editing/immediate/"
PERPLEXITY = "drift/perplexity"
OF_THE_MODEL = ("ability/", "drift/", "editing/retained/")
Rows = Sequence[Mapping[str, Any]]


def mean_row(models: Rows, n_edits: int) -> dict[str, Any]:
    """Returns the mean of the rows `models`, each number over the models that have it, as a row at `n_edits` edits.

    Where editing/immediate covers several batches, it is the mean over all edits.
    """
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
    """Returns, from the last row back, rows whose editing/immediate together cover every edit once.

    Rows overlap where a run went on with another eval_every, or was measured at other places later.
    """
    covering: list[Mapping[str, Any]] = []
    for model in reversed(models):
        if COVERED in model and (not covering or model["n_edits"] <= covering[-1]["n_edits"] - covering[-1][COVERED]):
            covering.append(model)
    return covering


def averaged(run: Run) -> Run:
    """Returns the run with two rows: the unedited model's, and the mean over all edited ones after their batch."""
    models = run.rows[1:]
    if not models:
        return run
    return replace(run, rows=[run.rows[0], mean_row(models, int(run.config.get("batch_size", 1)))], models=models)


def summarise_models(models: Rows, n_collapsed: int) -> dict[str, float]:
    """Returns every metric's mean over models; of abilities and perplexity the smallest and the largest too."""
    summary: dict[str, float] = {"summary/models": len(models), "summary/collapsed_models": n_collapsed}
    for key, mean in mean_row(models, 0).items():
        if not key.endswith("n_edits"):
            summary[f"summary/{key}_mean"] = mean
        if (key.startswith("ability/") and key.count("/") == 1) or key == PERPLEXITY:
            values = [model[key] for model in models if key in model]
            summary |= {f"summary/{key}_min": float(np.min(values)), f"summary/{key}_max": float(np.max(values))}
    return summary


def worst(models: Rows, key: str) -> float:
    """Returns the lowest score among the models, or the highest perplexity; NaN where a model has NaN."""
    values = [model[key] for model in models if key in model]
    return float(np.max(values) if key == PERPLEXITY else np.min(values))


def _keys(rows: Iterable[Mapping[str, Any]], prefixes: str | tuple[str, ...]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row if key.startswith(prefixes)))
