"""Helpers for the axes of every picture: colours, marks and dashes, ticks where something was measured, log scales."""

from __future__ import annotations

import functools
import io
import logging
import re
import warnings
from collections.abc import Sequence
from typing import IO, Any, Literal

import matplotlib
import numpy as np

matplotlib.use("Agg")  # pictures are written to files: no display is needed
from matplotlib import font_manager  # noqa: E402
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.text import Text  # noqa: E402
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator, ScalarFormatter  # noqa: E402

log = logging.getLogger(__name__)
# Fonts with the letters of names that matplotlib's own lacks, wherever they are installed.
OTHER_FONTS = ("Noto Sans CJK", "Noto Sans Devanagari", "Noto Sans Thai", "Source Han Sans", "WenQuanYi", "PingFang",
               "Hiragino Sans", "Microsoft YaHei", "Malgun Gothic", "Arial Unicode")  # fmt: skip
NO_GLYPH = re.compile(r"Glyph (\d+) .*missing")
matplotlib.rcParams["font.family"] = ["sans-serif", *sorted({font.name for font in font_manager.fontManager.ttflist
                                                             if font.name.startswith(OTHER_FONTS)})]  # fmt: skip

# Okabe and Ito's colours, which the colour-blind can tell apart; in black and white, markers and dashes do.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9", "#8C6D1F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", ":")
FURTHEST = 1000  # perplexities past so many times the unedited model's are drawn there: a broken model's has no limit
WIDENING = 8  # past this ratio of the largest distance between checkpoints to the smallest, the x-axis is stretched
MOST_TICKS = 9
# Ticks within each power of ten, from coarse to fine; the first that puts three ticks on the axis is taken.
LOG_TICKS = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7))


def edits_axis(axis: Axes, checkpoints: Sequence[int]) -> None:
    """Puts ticks at the checkpoints, on a stretched scale where their distances differ manyfold."""
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
    """Returns every k-th checkpoint from the first, at most `most` (2 or more).

    Of the possible k, one that keeps the last checkpoint is preferred.
    """
    steps = len(checkpoints) - 1
    if len(checkpoints) <= most:
        return list(checkpoints)
    least = -(-steps // (most - 1))
    every = next((k for k in range(least, 2 * least + 1) if steps % k == 0), least)
    return list(checkpoints[::every])


def log_axis(axis: Axes, which: Literal["x", "y"], low: float, high: float) -> None:
    """Sets a log scale from `low` to `high` (positive) whose ticks are plain numbers: 0.2, not 2e-01."""
    (axis.set_xscale if which == "x" else axis.set_yscale)("log")
    (axis.set_xlim if which == "x" else axis.set_ylim)(low, high)
    ticks = axis.xaxis if which == "x" else axis.yaxis
    ticks.set_major_locator(FixedLocator(_log_ticks(low, high)))
    ticks.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:g}"))
    ticks.set_minor_locator(NullLocator())


def at_least(axis: Axes, span: float) -> None:
    """Widens the y-axis to at least `span`, so that a small change does not look like a large one."""
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
    even = MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high)  # less than a power of ten: as on a linear scale
    return [tick for tick in (round(float(tick), 12) for tick in even) if low <= tick <= high]


def without_formulas(figure: Figure) -> Figure:
    """Returns the figure with a $ in names drawn as it is; only the numbers of logarithmic axes are formulas."""
    formulas = {id(label) for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) if axis.get_scale() != "linear"
                for label in axis.get_ticklabels(which="both")}  # fmt: skip
    for text in figure.findobj(Text):
        if id(text) not in formulas:
            text.set_parse_math(False)
    return figure


def save_figure(figure: Figure, file: IO[bytes], **how: Any) -> None:
    """Writes the figure, without formulas.  The log names the letters that no installed font has, once."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", NO_GLYPH.pattern)
        without_formulas(figure).savefig(file, **how)
    lacking = set()
    for warning in caught:
        found = NO_GLYPH.match(str(warning.message))
        if found:
            lacking.add(chr(int(found[1])))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if lacking:
        _say_once("".join(sorted(lacking)))


@functools.cache
def _say_once(letters: str) -> None:
    log.warning(
        "no installed font has the letters %s: pictures show boxes; install one, such as fonts-noto-cjk", letters
    )


def as_png(figure: Figure, dpi: int) -> bytes:
    """Returns the figure as a PNG file, without formulas, and closes it."""
    png = io.BytesIO()
    save_figure(figure, png, format="png", dpi=dpi)
    plt.close(figure)
    return png.getvalue()
