"""Curves over the number of edits: abilities with their bands, every seed a thin line; editing success; perplexity."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, islice
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")  # files only: no display is needed, none is opened
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.lines import Line2D  # noqa: E402
from matplotlib.patches import Patch  # noqa: E402
from matplotlib.ticker import MaxNLocator  # noqa: E402

from afteredit.analysis.comparison import Comparison, common_checkpoints, mean_over  # noqa: E402
from afteredit.analysis.curves import COLOURS, MARKERS  # noqa: E402
from afteredit.analysis.tidy import Run  # noqa: E402

TOGETHER = 4  # methods in one panel with their bands; more overlap
DASHES = ("-", "--", "-.", ":")
EDITING = {
    "editing/immediate/generated/efficacy": "Efficacy, right after the edit",
    "editing/retained/generated/efficacy": "Efficacy, retained",
    "editing/retained/generated/paraphrase": "Paraphrases, retained",
    "editing/retained/generated/neighbourhood": "Neighbourhood unchanged",
}
Styles = Mapping[str, Mapping[str, Any]]
Of = Callable[[Mapping[str, Any]], float]


def styles(labels: Sequence[str]) -> Styles:
    """Colour, marker and dash of each method, the same in every figure; 32 differ without colour."""
    shifted = [MARKERS[(i + i // len(MARKERS)) % len(MARKERS)] for i in range(len(labels))]
    colours, dashes = islice(cycle(COLOURS), len(labels)), islice(cycle(DASHES), len(labels))
    return {label: {"color": colour, "marker": marker, "linestyle": dash}
            for label, colour, marker, dash in zip(labels, colours, shifted, dashes, strict=True)}  # fmt: skip


def overview(x: Comparison) -> Figure:
    """What is left of all measurable abilities, and perplexity."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    look = styles(list(x.runs))
    for label in x.runs:
        _curve(left, x, label, "retained", lambda row: 100 * row.get("ability/retained", math.nan), look, scale=100,
               band=len(x.runs) <= TOGETHER)  # fmt: skip
        _seeds(right, x.runs[label], lambda row: row.get("drift/perplexity", math.nan), look[label], mean=True)
    _reference(left, 100, "unedited model")
    _reference(left, 0, "chance", linestyle=":")
    left.set(title="Ability retained, mean over measurable abilities", ylabel="share of unedited − chance (%)")
    right.set(title="Perplexity of held-out text", ylabel="perplexity")
    _log_where_wide(right)
    _finish(figure, [left, right], x, look)
    return figure


def abilities(x: Comparison) -> dict[str, Figure]:
    """Per ability the score's and the gold answer's NLL's change; in panels of few methods, the others in grey."""
    n_figures = math.ceil(len(x.runs) / TOGETHER)
    groups = [list(group) for group in np.array_split(list(x.runs), n_figures)]
    names = ["abilities"] if n_figures == 1 else [f"abilities-{i}" for i in range(1, n_figures + 1)]
    return {name: _abilities(x, group) for name, group in zip(names, groups, strict=True) if x.first.abilities}


def editing(x: Comparison) -> Figure:
    """Editing success by greedy generation; at 0 edits the unedited model's."""
    figure, axes = plt.subplots(2, 2, figsize=(11, 7), layout="constrained", sharex=True)
    look = styles(list(x.runs))
    for axis, (key, title) in zip(axes.flat, EDITING.items(), strict=True):
        for label, runs in x.runs.items():
            _seeds(axis, runs, lambda row, key=key: 100 * row.get(key, math.nan), look[label], mean=True)
        axis.set(title=title, ylim=(-3, 103), ylabel="share of prompts (%)")
    _finish(figure, list(axes.flat), x, look, xlabels=list(axes[1]))
    return figure


def _abilities(x: Comparison, shown: Sequence[str]) -> Figure:
    look = styles(list(x.runs))
    names = x.first.abilities
    figure, axes = plt.subplots(len(names), 2, figsize=(11, 2.7 * len(names) + 0.6), layout="constrained",
                                squeeze=False, sharex=True)  # fmt: skip
    for (left, right), name in zip(axes, names, strict=True):
        key, gold = f"ability/{name}", f"ability/{name}/gold_nll"
        for label in sorted(x.runs, key=lambda label: label in shown):  # grey ones below
            for axis, curve, scale in ((left, key, 100), (right, gold, 1)):
                _curve(axis, x, label, curve, _since_start(x.runs[label], curve, scale), look, scale,
                       grey=label not in shown)  # fmt: skip
        base, chance = x.base(name), x.chance[name]
        _reference(left, 0, "")
        _reference(right, 0, "")
        if not math.isnan(chance):
            left.axhline(100 * (chance - base), color="0.25", linestyle=":", linewidth=1.2)
            left.text(0.01, 100 * (chance - base), " chance", transform=left.get_yaxis_transform(), fontsize=8,
                      va="bottom", color="0.25")  # fmt: skip
        title = x.ability_title(name)
        if name not in x.measurable:
            left.set_facecolor("#ececec")
            title += " — not measurable: unedited model at chance"
        left.set_title(title, fontsize=10, loc="left")
        right.set_title("gold answers", fontsize=10, loc="left")
        left.set_ylabel(f"change (points)\nunedited: {100 * base:.1f} %", fontsize=9)
        right.set_ylabel("change of NLL\n(nats per token)", fontsize=9)
        left.margins(y=0.12)
    _finish(figure, list(axes.flat), x, {label: look[label] for label in shown}, xlabels=list(axes[-1]),
            grey=len(shown) < len(x.runs))  # fmt: skip
    return figure


def _curve(axis: Axes, x: Comparison, label: str, curve: str, of: Of, look: Styles, scale: float, *,
           band: bool = True, grey: bool = False) -> None:  # fmt: skip
    """The mean over runs with its band over examples, and each run as a thin line."""
    points = x.curves[(x.curves["method"] == label) & (x.curves["curve"] == curve)]
    if grey:
        axis.plot(points["n_edits"], scale * points["value"], color="0.8", linewidth=1, zorder=1)
        return
    style = look[label]
    if band and points["low"].notna().any():
        low, high = (scale * points[side].replace([-np.inf, np.inf], np.nan) for side in ("low", "high"))
        axis.fill_between(points["n_edits"], low, high, color=style["color"], alpha=0.16, linewidth=0)
    axis.plot(points["n_edits"], scale * points["value"], linewidth=1.9, markersize=5, **style)
    _seeds(axis, x.runs[label], of, style, mean=False)


def _seeds(axis: Axes, runs: Sequence[Run], of: Of, style: Mapping[str, Any], *, mean: bool) -> None:
    """Each run a thin line where there are several; with `mean`, their mean at the checkpoints that all have."""
    for run in runs if len(runs) > 1 else []:
        axis.plot([row["n_edits"] for row in run.rows], [_finite(of(row)) for row in run.rows], color=style["color"],
                  linestyle=style["linestyle"], linewidth=0.7, alpha=0.6)  # fmt: skip
    if mean:
        n_edits = common_checkpoints(runs)
        axis.plot(n_edits, [_finite(mean_over(runs, n, of)) for n in n_edits], linewidth=1.9, markersize=5, **style)


def _since_start(runs: Sequence[Run], key: str, scale: float) -> Of:
    start = runs[0].rows[0].get(key, math.nan)
    return lambda row: scale * (row.get(key, math.nan) - start)


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.nan


def _log_where_wide(axis: Axes) -> None:
    """A log scale where values span more than fivefold; else at least ±20 %, so that 1 % does not look like a cliff."""
    drawn = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axis.lines] or [np.array([1.0])])
    drawn = drawn[np.isfinite(drawn) & (drawn > 0)]
    if len(drawn) and drawn.max() > 5 * drawn.min():
        axis.set(yscale="log", ylabel=f"{axis.get_ylabel()} (log scale)")
    elif len(drawn):
        axis.set_ylim(0.8 * drawn.min(), 1.2 * drawn.max())


def _reference(axis: Axes, level: float, text: str, linestyle: str = "-") -> None:
    axis.axhline(level, color="0.25", linewidth=0.9, linestyle=linestyle, zorder=1.5)
    axis.text(0.01, level, f" {text}", transform=axis.get_yaxis_transform(), fontsize=8, va="bottom", color="0.25")


def _finish(figure: Figure, axes: Sequence[Axes], x: Comparison, look: Styles, *,
            xlabels: Sequence[Axes] | None = None, grey: bool = False) -> None:  # fmt: skip
    """Grid, units of the x-axis, where runs collapsed, and one legend above all panels."""
    collapsed = [(run.collapsed_at, look[label]) for label, runs in x.runs.items() if label in look for run in runs
                 if run.collapsed_at is not None]  # fmt: skip
    for axis in axes:
        axis.grid(alpha=0.25)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        for n_edits, style in collapsed:
            axis.plot([n_edits], [0.03], marker="X", markersize=9, color=style["color"], markeredgecolor="black",
                      transform=axis.get_xaxis_transform(), clip_on=False, zorder=5, linestyle="none")  # fmt: skip
    for axis in axes if xlabels is None else xlabels:
        axis.set_xlabel("edits applied")
    legend(figure, x, look, seeds="one seed", grey=grey, collapse=bool(collapsed))


def legend(figure: Figure, x: Comparison, look: Styles, *, seeds: str = "", grey: bool = False,
           collapse: bool = False) -> None:  # fmt: skip
    """One for all panels, above them."""
    handles: list[Any] = [Line2D([], [], linewidth=1.9, markersize=6, label=label, **style)
                          for label, style in look.items()]  # fmt: skip
    if seeds and any(len(runs) > 1 for runs in x.runs.values()):
        hollow = {"marker": "o", "markerfacecolor": "none", "linestyle": "none"} if "hollow" in seeds else {}
        handles.append(Line2D([], [], color="0.3", linewidth=0.7, label=seeds, **hollow))
    if grey:
        handles.append(Patch(color="0.8", label="other methods"))
    if collapse:
        handles.append(Line2D([], [], color="0.6", marker="X", markersize=9, markeredgecolor="black", linestyle="none",
                              label="collapse"))  # fmt: skip
    widest = max(len(str(handle.get_label())) for handle in handles)
    figure.legend(handles=handles, loc="outside upper center", ncols=max(1, min(len(handles), 120 // (widest + 8))),
                  frameon=False, fontsize=9, handlelength=3)  # fmt: skip
