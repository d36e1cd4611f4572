"""Draws the curves of one run, from its results rows alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from afteredit.analysis.pictures.axes import COLOURS, DASHES, FURTHEST, MARKERS, as_png, edits_axis, log_axis
from afteredit.analysis.pictures.editing_labels import EDITING_LABELS

EDITING = ("immediate/prob/efficacy", "retained/prob/efficacy", "retained/generated/efficacy",
           "retained/prob/paraphrase", "retained/prob/neighbourhood", "retained/generated/neighbourhood")  # fmt: skip


def draw_curves(rows: Sequence[Mapping[str, Any]], chance: Mapping[str, float], path: Path, title: str) -> Path:
    """Writes `curves_figure` as a PNG and returns its path."""
    path.write_bytes(as_png(curves_figure(rows, chance, title), 120))
    return path


def curves_figure(rows: Sequence[Mapping[str, Any]], chance: Mapping[str, float], title: str) -> Figure:
    """Returns abilities, editing success, the gold answers' NLL and perplexity over the number of edits."""
    figure, axes = plt.subplots(2, 2, figsize=(14, 9), layout="constrained")
    figure.suptitle(title)
    _abilities(axes[0, 0], rows, chance, rows[0].get("measurable", []))
    success = {EDITING_LABELS[key]: [_percent(row.get(key)) for row in rows]
               for key in (f"editing/{metric}" for metric in EDITING)}  # fmt: skip
    _lines(axes[0, 1], rows, success)
    axes[0, 1].set(title="Editing success (at 0: the unedited model)", ylabel="share of prompts (%)", ylim=(-2, 102))
    _lines(axes[1, 0], rows, {name: _since_start(rows, f"ability/{name}/gold_nll") for name in chance})
    axes[1, 0].axhline(0, color="0.25", linewidth=0.9, zorder=1.5)
    axes[1, 0].set(title="Gold answers: how much less likely", ylabel="NLL since 0 edits (nats per token)")
    _perplexity(axes[1, 1], rows)
    checkpoints = [int(row["n_edits"]) for row in rows]
    for axis in axes.flat:
        axis.grid(alpha=0.25)
        edits_axis(axis, checkpoints)
        axis.set_xlabel("edits applied")
        if len(axis.get_legend_handles_labels()[0]) > 1:
            axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, handlelength=3.5)
    return figure


def _abilities(axis: Axes, rows: Sequence[Mapping[str, Any]], chance: Mapping[str, float], measurable: list) -> None:
    """Draws scores, faint where the unedited model is not above chance; thin dotted lines are chance."""
    labels = {name: name if name in measurable else f"{name} (not measurable)" for name in chance}
    _lines(
        axis,
        rows,
        {label: [_percent(row.get(f"ability/{name}")) for row in rows] for name, label in labels.items()},
        faint=[label for name, label in labels.items() if name not in measurable],
    )
    for index, level in enumerate(chance.values()):
        if level:
            axis.axhline(100 * level, color=COLOURS[index % len(COLOURS)], linestyle=":", linewidth=0.8)
    axis.set(title="General abilities (thin dotted: chance)", ylabel="score (%)", ylim=(-2, 102))


def _perplexity(axis: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    most = FURTHEST * rows[0].get("drift/perplexity", math.inf)
    perplexity = [None if (value := row.get("drift/perplexity")) is None else min(value, most) for row in rows]
    _lines(axis, rows, {"held-out text": perplexity})
    axis.set(title="Perplexity of held-out text", ylabel="perplexity")
    known = [value for value in perplexity if value and math.isfinite(value)]
    if known and max(known) > 5 * min(known):
        log_axis(axis, "y", 0.8 * min(known), 1.25 * max(known))
        axis.set_ylabel("perplexity (log scale)")
        if max(known) >= most:
            axis.set_title(f"Perplexity of held-out text, at most {FURTHEST} × the unedited model's")
    elif known:  # a change of 1 % must not look like a cliff
        axis.set_ylim(0.8 * min(known), 1.2 * max(known))


def _lines(
    axis: Axes, rows: Sequence[Mapping[str, Any]], lines: Mapping[str, list[float | None]], faint: Sequence[str] = ()
) -> None:
    """Draws one line per label, through the checkpoints that have a value."""
    for index, (label, values) in enumerate(lines.items()):
        points = [(row["n_edits"], value) for row, value in zip(rows, values, strict=True) if value is not None]
        if points:
            x, y = zip(*points, strict=True)
            axis.plot(x, y, label=label, color=COLOURS[index % len(COLOURS)], marker=MARKERS[index % len(MARKERS)],
                      linestyle=DASHES[index % len(DASHES)], alpha=0.35 if label in faint else 1.0)  # fmt: skip


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _since_start(rows: Sequence[Mapping[str, Any]], key: str) -> list[float | None]:
    start = rows[0].get(key)
    return [None if start is None or key not in row else row[key] - start for row in rows]
