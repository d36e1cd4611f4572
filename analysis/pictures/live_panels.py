"""Reads a drawn figure as panels that a browser can draw: the same curves, to be hovered, zoomed and filtered.

So a chart is written once.  The label of a line, band or text says to what it belongs: the method, and on the lines
below what is shown where it is hovered.  What has no label stays whichever methods are shown.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import FillBetweenPolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator

PIXELS = 80  # of an inch of a figure
DASHES = {"-": "solid", "--": "dash", "-.": "dashdot", ":": "dot"}
MARKERS = {"o": "circle", "s": "square", "^": "triangle-up", "D": "diamond", "v": "triangle-down", "P": "cross",
           "X": "x", "*": "star"}  # fmt: skip


def live_panels(figure: Figure) -> list[dict[str, Any]]:
    """Returns the panels of a figure in plain numbers and texts, without those that only explain looks; none where
    it shows more than lines, bands, texts and maps, and so stays a picture.

    The figure was drawn or saved before: ticks and their texts are not known until then.
    """
    panels = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
    known = all(axes.images or not axes.patches for axes in panels) and all(
        isinstance(shape, FillBetweenPolyCollection) for axes in panels for shape in axes.collections
    )
    return [_panel(axes, figure) for axes in panels] if known else []


def live_style(style: Mapping[str, Any]) -> dict[str, str]:
    """Returns a method's look (report_style.py) in the words of the page."""
    return {"colour": style["color"], "dash": DASHES[style["linestyle"]], "marker": MARKERS[style["marker"]]}


def key_to(figure: Figure, methods: Iterable[str]) -> list[str]:
    """Returns in words what the figure's legend says beside the looks of `methods`."""
    handles = figure.legends[0].legend_handles if figure.legends else []
    return [f"{_mark(handle)}: {handle.get_label()}" for handle in handles
            if handle is not None and handle.get_label() not in set(methods)]  # fmt: skip


def _panel(axes: Axes, figure: Figure) -> dict[str, Any]:
    levels = {line: _level(line) for line in axes.lines if _crosses(line)}
    texts = [] if axes.images else [_text(text) for text in axes.texts]
    return {
        "title": axes.get_title() or axes.get_title(loc="left"), **_size(axes, figure),
        "grey": to_hex(axes.get_facecolor()) != "#ffffff",
        "x": _axis(axes.xaxis, axes.get_xlim()), "y": _axis(axes.yaxis, axes.get_ylim()),
        "lines": [_line(axes, line) for line in axes.lines if not _crosses(line) and _in_data(line) == (True, True)],
        "bands": [{**_belongs(band), "colour": to_hex(band.get_facecolor()[0]),  # type: ignore[arg-type]
                   "x": _numbers(axes.xaxis, outline[:, 0]), "y": _numbers(axes.yaxis, outline[:, 1])}
                  for band in axes.collections for outline in (np.asarray(path.vertices) for path in band.get_paths())],
        "levels": [{"dash": DASHES[str(line.get_linestyle())], **level} for line, level in levels.items()
                   if all(map(math.isfinite, level.values()))],
        "collapses": [{**_belongs(line), "colour": to_hex(line.get_color()),
                       "x": _numbers(axes.xaxis, line.get_xdata())[0]}
                      for line in axes.lines if _in_data(line) == (True, False) and not _crosses(line)],
        "texts": [text for text in texts if math.isfinite(text["x"]) and math.isfinite(text["y"])],
        "map": _map(axes) if axes.images else None,
    }  # fmt: skip


def _size(axes: Axes, figure: Figure) -> dict[str, float]:
    """Returns the share of the figure's width, and the height in pixels."""
    place = axes.get_subplotspec()
    if place is None:
        return {"width": 1, "height": round(PIXELS * figure.get_figheight())}
    grid, heights = place.get_gridspec(), np.ones(place.get_gridspec().nrows)
    if grid.get_height_ratios() is not None:
        heights = np.array(grid.get_height_ratios(), dtype=float)
    share = heights[place.rowspan.start : place.rowspan.stop].sum() / heights.sum()
    return {"width": len(place.colspan) / grid.ncols, "height": round(PIXELS * figure.get_figheight() * share)}


def _axis(axis: Axis, limits: tuple[float, float]) -> dict[str, Any]:
    """Returns title, scale, range and, where they are fixed, ticks; a stretched scale is drawn as a linear one."""
    scale, fixed = axis.get_scale(), isinstance(axis.get_major_locator(), FixedLocator)
    low, high = np.log10(limits).tolist() if scale == "log" else _numbers(axis, limits)
    return {
        "title": axis.get_label_text(),
        "log": scale == "log",
        "range": [low, high],
        "stretched": scale == "symlog",
        "ticks": _numbers(axis, axis.get_majorticklocs()) if fixed else None,
        "labels": _tick_texts(axis),
    }


def _tick_texts(axis: Axis) -> list[str]:
    return list(axis.get_major_formatter().format_ticks(list(axis.get_majorticklocs())))


def _line(axes: Axes, line: Line2D) -> dict[str, Any]:
    marker, hollow = MARKERS.get(str(line.get_marker()), ""), line.get_markerfacecolor() in ("none", "white")
    colour = line.get_markeredgecolor() if hollow else line.get_color()
    return {**_belongs(line), "colour": to_hex(colour), "dash": DASHES.get(str(line.get_linestyle())),
            "marker": f"{marker}-open" if marker and hollow else marker, "size": 1.3 * line.get_markersize(),
            "width": line.get_linewidth(), "opacity": line.get_alpha() or 1,
            "x": _numbers(axes.xaxis, line.get_xdata()), "y": _numbers(axes.yaxis, line.get_ydata()),
            "at": [f"{x:g}" for x in np.asarray(line.get_xdata(), dtype=float)]}  # fmt: skip


def _text(text: Any) -> dict[str, Any]:
    x, y = text.xy if hasattr(text, "xy") else text.get_position()
    shift = text.xyann if hasattr(text, "xyann") else (0, 0)
    return {**_belongs(text), "text": text.get_text(), "x": float(x), "y": float(y), "colour": to_hex(text.get_color()),
            "shift": [float(distance) for distance in shift]}  # fmt: skip


def _map(axes: Axes) -> dict[str, Any]:
    """Returns what an image of rows and columns shows: their names, the values, and the texts in each cell."""
    values = np.ma.filled(axes.images[0].get_array(), math.nan)  # type: ignore[arg-type]
    texts: dict[tuple[int, int], list[str]] = {}
    for text in map(_text, axes.texts):
        texts.setdefault((round(text["y"]), round(text["x"])), []).append(text["text"])
    low, high = axes.images[0].get_clim()
    rows, columns = _tick_texts(axes.yaxis), _tick_texts(axes.xaxis)
    return {"rows": rows, "columns": columns, "low": low, "high": high,
            "values": [[None if math.isnan(value) else float(value) for value in row] for row in values],
            "texts": [[texts.get((i, j), []) for j in range(len(columns))] for i in range(len(rows))]}  # fmt: skip


def _belongs(artist: Any) -> dict[str, str]:
    label = str(artist.get_label())
    method, _, about = ("" if label.startswith("_") else label).partition("\n")
    return {"method": method, "about": about}


def _in_data(line: Line2D) -> tuple[bool, bool]:
    """Tells of x and of y whether they are data; else they are shares of the panel's width or height."""
    assert line.axes is not None
    x, y = line.get_transform().contains_branch_seperately(line.axes.transData)
    return bool(x), bool(y)


def _crosses(line: Line2D) -> bool:
    """Tells whether the line goes through the whole panel, across or down."""
    return _in_data(line) != (True, True) and len(line.get_xdata()) == 2  # type: ignore[arg-type]


def _level(line: Line2D) -> dict[str, float]:
    across = _in_data(line)[1]
    return {"y" if across else "x": float(np.asarray(line.get_ydata() if across else line.get_xdata())[0])}


def _numbers(axis: Axis, values: Any) -> list[float | None]:
    """Returns plain numbers, None where there is none; of a stretched axis those places that make it linear."""
    numbers = np.asarray(values, dtype=float)
    if axis.get_scale() == "symlog":
        numbers = axis.get_transform().transform(numbers)
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in numbers]


def _mark(handle: Any) -> str:
    if isinstance(handle, Patch):
        return "shaded"
    if handle.get_marker() == "X":
        return "✖"
    if handle.get_marker() == "o":
        return "hollow"
    return {":": "dotted"}.get(handle.get_linestyle(), "grey" if handle.get_color() == "0.8" else "thin")
