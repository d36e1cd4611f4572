"""Degradation curves of one run as a picture.  Reads results rows only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # files only: no display is needed, none is opened
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.ticker import MaxNLocator  # noqa: E402

# Okabe and Ito's colours, told apart by the colour-blind; markers and dashes tell lines apart in black and white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9", "#8C6D1F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
EDITING = {
    "editing/immediate/prob/efficacy": "efficacy, right after the edit",
    "editing/retained/prob/efficacy": "efficacy, retained",
    "editing/retained/generated/efficacy": "efficacy when generating, retained",
    "editing/retained/prob/paraphrase": "paraphrases, retained",
    "editing/retained/prob/neighbourhood": "neighbourhood unchanged",
    "editing/retained/generated/neighbourhood": "neighbourhood unchanged, generating",
}


def draw_curves(rows: Sequence[Mapping[str, Any]], chance: Mapping[str, float], path: Path, title: str) -> Path:
    """Abilities, editing success, the gold answers' NLL and perplexity over the number of edits; writes a PNG."""
    figure, axes = plt.subplots(2, 2, figsize=(13, 9), sharex=True, layout="constrained")
    figure.suptitle(title)
    measurable = rows[0].get("measurable", [])
    _abilities(axes[0, 0], rows, chance, measurable)
    _editing(axes[0, 1], rows)
    _lines(axes[1, 0], rows, {f"ability/{name}/gold_nll": name for name in chance})
    axes[1, 0].set(title="Gold answers become less likely", ylabel="NLL of the gold answer (nats per token)")
    _lines(axes[1, 1], rows, {"drift/perplexity": "held-out text"})
    axes[1, 1].set(title="Perplexity", ylabel="perplexity (log scale)", yscale="log")
    for axis in axes.flat:
        axis.grid(alpha=0.25)
        axis.tick_params(labelbottom=True)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_xlabel("edits applied")
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=8, framealpha=0.85)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def _abilities(axis: Axes, rows: Sequence[Mapping[str, Any]], chance: Mapping[str, float], measurable: list) -> None:
    for index, (name, level) in enumerate(chance.items()):
        points = [(row["n_edits"], 100 * row[f"ability/{name}"]) for row in rows if f"ability/{name}" in row]
        if not points:
            continue
        known = name in measurable
        x, y = zip(*points, strict=True)
        label = name if known else f"{name} (not measurable)"
        axis.plot(x, y, color=COLOURS[index % 8], marker=MARKERS[index % 8], label=label, alpha=1.0 if known else 0.35)
        if level:
            axis.axhline(100 * level, color=COLOURS[index % 8], linestyle=":", linewidth=0.8)
    axis.set(title="General abilities (dotted: chance)", ylabel="score (%)", ylim=(-2, 102))


def _editing(axis: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    _lines(axis, rows, EDITING, scale=100)
    axis.set(title="Editing success (at 0: the unedited model)", ylabel="share of prompts (%)", ylim=(-2, 102))


def _lines(axis: Axes, rows: Sequence[Mapping[str, Any]], keys: Mapping[str, str], scale: float = 1) -> None:
    for index, (key, label) in enumerate(keys.items()):
        points = [(row["n_edits"], scale * row[key]) for row in rows if key in row]
        if points:
            x, y = zip(*points, strict=True)
            axis.plot(x, y, color=COLOURS[index % 8], marker=MARKERS[index % 8], label=label)
