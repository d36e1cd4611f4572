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
    figure, axes = plt.subplots(2, 2, figsize=(14, 9), layout="constrained")
    figure.suptitle(title)
    _abilities(axes[0, 0], rows, chance, rows[0].get("measurable", []))
    _lines(axes[0, 1], rows, {label: [_percent(row.get(key)) for row in rows] for key, label in EDITING.items()})
    axes[0, 1].set(title="Editing success (at 0: the unedited model)", ylabel="share of prompts (%)", ylim=(-2, 102))
    _lines(axes[1, 0], rows, {name: _since_start(rows, f"ability/{name}/gold_nll") for name in chance})
    axes[1, 0].set(title="Gold answers: how much less likely", ylabel="NLL since 0 edits (nats per token)")
    perplexity = [row.get("drift/perplexity") for row in rows]
    _lines(axes[1, 1], rows, {"held-out text": perplexity})
    axes[1, 1].set(title="Perplexity", ylabel="perplexity")
    known = [value for value in perplexity if value]
    if known and max(known) > 5 * min(known):
        axes[1, 1].set(yscale="log", ylabel="perplexity (log scale)")
    elif known:  # a change of a per cent must not look like a cliff
        axes[1, 1].set(ylim=(0.8 * min(known), 1.2 * max(known)))
    for axis in axes.flat:
        axis.grid(alpha=0.25)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_xlabel("edits applied")
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def _abilities(axis: Axes, rows: Sequence[Mapping[str, Any]], chance: Mapping[str, float], measurable: list) -> None:
    """Scores, faint where the unedited model does not stand above chance; dotted lines are chance."""
    labels = {name: name if name in measurable else f"{name} (not measurable)" for name in chance}
    _lines(
        axis,
        rows,
        {label: [_percent(row.get(f"ability/{name}")) for row in rows] for name, label in labels.items()},
        faint=[label for name, label in labels.items() if name not in measurable],
    )
    for index, level in enumerate(chance.values()):
        if level:
            axis.axhline(100 * level, color=COLOURS[index % 8], linestyle=":", linewidth=0.8)
    axis.set(title="General abilities (dotted: chance)", ylabel="score (%)", ylim=(-2, 102))


def _lines(
    axis: Axes, rows: Sequence[Mapping[str, Any]], lines: Mapping[str, list[float | None]], faint: Sequence[str] = ()
) -> None:
    """One line per label, through the checkpoints that have a value."""
    for index, (label, values) in enumerate(lines.items()):
        points = [(row["n_edits"], value) for row, value in zip(rows, values, strict=True) if value is not None]
        if points:
            x, y = zip(*points, strict=True)
            colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
            axis.plot(x, y, label=label, color=colour, marker=marker, alpha=0.35 if label in faint else 1.0)


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _since_start(rows: Sequence[Mapping[str, Any]], key: str) -> list[float | None]:
    start = rows[0].get(key)
    return [None if start is None or key not in row else row[key] - start for row in rows]
