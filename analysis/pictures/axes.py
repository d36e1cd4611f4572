"""What every picture's axes share: colours, marks and dashes; ticks where something was measured; plain log scales."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import matplotlib
import numpy as np

matplotlib.use("Agg")  # files only: no display is needed, none is opened
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator, ScalarFormatter  # noqa: E402

# Okabe and Ito's colours, told apart by the colour-blind; markers and dashes tell lines apart in black and white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9", "#8C6D1F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", ":")
FURTHEST = 1000  # a perplexity past so many times the unedited model's is drawn there: a broken model's is any number
WIDENING = 8  # the largest distance between checkpoints over the smallest, past which the x-axis is stretched
MOST_TICKS = 9
# From coarse to fine, within each power of ten; the first that puts three ticks on the axis is taken.
LOG_TICKS = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7))


def edits_axis(axis: Axes, checkpoints: Sequence[int]) -> None:
    """Ticks at the checkpoints; a stretched scale where their distances grow manyfold."""
    gaps, last = np.diff(checkpoints), max(checkpoints[-1], 1)
    if len(gaps) > 1 and gaps.max() > WIDENING * gaps.min():
        axis.set_xscale("symlog", linthresh=checkpoints[1])
        axis.set_xlim(-0.08 * checkpoints[1], 1.15 * last)
    else:
        axis.set_xlim(-0.04 * last, 1.04 * last)
    axis.xaxis.set_major_locator(FixedLocator(thinned(checkpoints, MOST_TICKS)))
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.xaxis.set_minor_locator(NullLocator())


def thinned(checkpoints: Sequence[int], most: int) -> list[int]:
    """Every k-th from the first, at most `most` (2 or more); k such that the last is among them where one nearby does
    it."""
    steps = len(checkpoints) - 1
    if len(checkpoints) <= most:
        return list(checkpoints)
    least = -(-steps // (most - 1))
    every = next((k for k in range(least, 2 * least + 1) if steps % k == 0), least)
    return list(checkpoints[::every])


def log_axis(axis: Axes, which: Literal["x", "y"], low: float, high: float) -> None:
    """A log scale from `low` to `high` (positive) whose ticks are plain numbers: 0.2, not 2e-01."""
    (axis.set_xscale if which == "x" else axis.set_yscale)("log")
    (axis.set_xlim if which == "x" else axis.set_ylim)(low, high)
    own = axis.xaxis if which == "x" else axis.yaxis
    own.set_major_locator(FixedLocator(_log_ticks(low, high)))
    own.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:g}"))
    own.set_minor_locator(NullLocator())


def at_least(axis: Axes, span: float) -> None:
    """Widens the y-axis to `span`, so that nothing moving does not look like much."""
    low, high = axis.get_ylim()
    if high - low < span:
        axis.set_ylim((low + high - span) / 2, (low + high + span) / 2)


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for digits in LOG_TICKS:
        ticks = [round(digit * 10.0**power, 12) for power in decades for digit in digits]
        shown = [tick for tick in ticks if low <= tick <= high]
        if len(shown) >= 3:
            return shown[:: -(-len(shown) // MOST_TICKS)]
    even = MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high)  # less than a decade: as on a linear scale
    return [tick for tick in (round(float(tick), 12) for tick in even) if low <= tick <= high]
