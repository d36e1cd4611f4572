"""Writes the report: one page that opens without a network, its pictures as PNG and SVG, and all its numbers."""

from __future__ import annotations

import base64
import gzip
import io
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from afteredit.analysis.numbers.comparison import Comparison, comparisons
from afteredit.analysis.numbers.flat_tables import edits_table, metrics_table, samples_table
from afteredit.analysis.pictures.axes import as_png, save_figure
from afteredit.analysis.pictures.live_panels import key_to, live_panels
from afteredit.analysis.pictures.report_style import styles
from afteredit.analysis.read.run import Run, faults
from afteredit.analysis.report_page import render
from afteredit.analysis.report_part import Part
from afteredit.store.atomic_files import written_together
from afteredit.store.errors import BadInput

log = logging.getLogger(__name__)
HERE = Path(__file__).parent
PART_FOLDERS = ("pictures/report_charts", "tables/report_tables")  # each file in them is a part of the page
Write = Callable[[Path, bytes], None]
TITLE = "<title>What is left after the edits</title>"  # of template.html
LARGE = "samples"  # this table has one row per example and checkpoint: its CSV is compressed


def write_report(runs: Sequence[Run], out: Path, checkpoints: Sequence[int] = ()) -> Path:
    """Writes report.html, and a folder of pictures and tables for each comparison; returns the page.

    What the runs' readers found damaged is named at its top.

    `checkpoints`: the numbers of edits to show in the heat map.  Raises BadInput.
    """
    found = comparisons(runs)
    if not found:
        raise BadInput("no runs to report on; give run directories, --wandb ENTITY/PROJECT or --sweep ID")
    measured = sorted({n for comparison in found for n in comparison.checkpoints})
    for n_edits in checkpoints:
        if n_edits not in measured:
            allowed = ", ".join(map(str, measured)) or "none"
            raise BadInput(f"--at {n_edits}: nothing was measured there; allowed: {allowed}")
    sections, page = [], out / "report.html"
    with written_together(page, TITLE) as write:
        for number, comparison in enumerate(found, start=1):
            log.info("%s: %d methods", comparison.title, len(comparison.runs))
            folder = out if len(found) == 1 else out / f"{number}-{comparison.first.evaluation or 'results'}"
            sections.append(_section(comparison, folder, checkpoints, write))
        write(page, render(sections, faults(runs)))
    return page


def part_files() -> list[ModuleType]:
    """Returns the files that make the parts of the page, in the order of their PLACE."""
    names = [".".join(path.relative_to(HERE).with_suffix("").parts)
             for folder in PART_FOLDERS for path in sorted((HERE / folder).glob("*.py"))]  # fmt: skip
    return sorted((import_module(f"afteredit.analysis.{name}") for name in names), key=lambda file: file.PLACE)


def parts(comparison: Comparison, checkpoints: Sequence[int]) -> Iterator[Part]:
    """Yields, one after another, the parts of the page that have something to show."""
    for file in part_files():
        part = file.part(comparison, checkpoints)
        if part is not None:
            yield part


def _section(comparison: Comparison, folder: Path, checkpoints: Sequence[int], write: Write) -> dict[str, Any]:
    """Writes the pictures and tables of one comparison into `folder`; returns what the page shows of them."""
    _make(folder)
    tables = {"metrics": metrics_table(comparison.runs), LARGE: samples_table(comparison.runs),
              "curves": comparison.curves, "edits": edits_table(comparison.runs),
              "summaries": comparison.summaries}  # fmt: skip
    shown, methods = [], styles(list(comparison.runs))
    for part in parts(comparison, checkpoints):
        tables |= part.numbers
        figures = [_save(figure, folder / name, write, methods) for name, figure in part.figures.items()]
        if figures or part.table is not None:
            shown.append({"part": part, "figures": figures})
    for name, table in tables.items():
        parquet, text = io.BytesIO(), table.to_csv(index=False).encode()
        table.to_parquet(parquet, index=False)
        write(folder / f"{name}.parquet", parquet.getvalue())
        if name == LARGE:
            write(folder / f"{name}.csv.gz", gzip.compress(text, compresslevel=6, mtime=0))
        else:
            write(folder / f"{name}.csv", text)
    return {"title": comparison.title, "caption": comparison.caption, "methods": methods, "parts": shown}


def _save(figure: Figure, stem: Path, write: Write, methods: Collection[str]) -> dict[str, Any]:
    """Writes the picture as PNG and SVG; returns the SVG as a data URI, so that no two pictures share ids, and what the
    page draws anew: its panels, and the key to them beside the looks of `methods`."""
    svg = io.BytesIO()
    with rc_context({"svg.hashsalt": stem.name}):  # the same numbers give the same file
        save_figure(figure, svg, format="svg", metadata={"Date": None})
    write(stem.with_name(f"{stem.name}.png"), as_png(figure, 120))
    write(stem.with_name(f"{stem.name}.svg"), svg.getvalue())
    source = "data:image/svg+xml;base64," + base64.b64encode(svg.getvalue()).decode()
    return {"source": source, "panels": live_panels(figure), "key": key_to(figure, methods)}


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise BadInput(f"--out {folder}: the folder cannot be made ({problem.strerror}); give another") from None
