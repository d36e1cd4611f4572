"""Draws editing success by greedy generation over the number of edits; at 0 edits the unedited model's."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib import pyplot as plt

from afteredit.analysis.numbers.comparison import Comparison
from afteredit.analysis.numbers.run_values import number
from afteredit.analysis.pictures.editing_labels import EDITING_LABELS
from afteredit.analysis.pictures.method_curves import draw_runs_and_mean
from afteredit.analysis.pictures.report_style import finish, styles
from afteredit.analysis.report_part import Part

PLACE = 50
METRICS = ("immediate/generated/efficacy", "retained/generated/efficacy", "retained/generated/paraphrase",
           "retained/generated/neighbourhood")  # fmt: skip


def part(comparison: Comparison, checkpoints: Sequence[int]) -> Part | None:
    """Returns one picture with a panel per metric; None where none of them was measured."""
    rows = [row for runs in comparison.runs.values() for run in runs for row in run.rows]
    keys = [key for key in (f"editing/{metric}" for metric in METRICS) if any(key in row for row in rows)]
    if not keys:
        return None
    n_rows = math.ceil(len(keys) / 2)
    figure, axes = plt.subplots(n_rows, 2, figsize=(11, 3.4 * n_rows), layout="constrained", squeeze=False)
    look = styles(list(comparison.runs))
    for axis, key in zip(axes.flat, keys, strict=False):
        for label, runs in comparison.runs.items():
            draw_runs_and_mean(axis, runs, number(key, 100), look[label])
        title = EDITING_LABELS[key]
        axis.set(title=title[0].upper() + title[1:], ylim=(-3, 103), ylabel="share of prompts (%)")
    for axis in list(axes.flat)[len(keys) :]:
        axis.remove()
    finish(figure, list(axes.flat)[: len(keys)], comparison, look)
    return Part("Editing success", "Greedy text must begin with the target. At 0 edits: the unedited model.",
                {"editing": figure})  # fmt: skip
