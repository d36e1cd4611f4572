"""The report: one page that opens without a network, its pictures as PNG and SVG, and all its numbers as tables."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment
from matplotlib import pyplot as plt
from matplotlib import rc_context
from matplotlib.figure import Figure

from afteredit.analysis.numbers.comparison import Comparison, comparisons
from afteredit.analysis.numbers.flat_tables import edits_table, metrics_table, samples_table
from afteredit.analysis.pictures import heat_and_drift as maps
from afteredit.analysis.pictures import report_curves as plots
from afteredit.analysis.pictures.trade_off import trade_off
from afteredit.analysis.read.run_folders import BadResults, Run
from afteredit.analysis.tables import report_tables as tables

log = logging.getLogger(__name__)
LARGE = "samples"  # one row per example and checkpoint: its CSV is compressed


def write_report(runs: Sequence[Run], out: Path, at: Sequence[int] = ()) -> Path:
    """Writes report.html, and a folder of pictures and tables per comparison; returns the page.

    `at`: the numbers of edits of the heat map.  Raises BadResults.
    """
    found = comparisons(runs)
    if not found:
        raise BadResults("no runs to report on; give run directories, --wandb ENTITY/PROJECT or --sweep ID")
    measured = sorted(set().union(*map(maps.measured_checkpoints, found)))
    for n_edits in at:
        if n_edits not in measured:
            raise BadResults(
                f"--at {n_edits}: nothing was measured there; allowed: {', '.join(map(str, measured)) or 'none'}"
            )
    sections = []
    for number, x in enumerate(found, start=1):
        log.info("%s: %d methods", x.title, len(x.runs))
        folder = out if len(found) == 1 else out / f"{number}-{x.first.evaluation or 'results'}"
        sections.append(_section(x, folder, at))
    page = out / "report.html"
    page.write_text(_template().render(sections=sections), encoding="utf-8")
    return page


def figures(x: Comparison, at: Sequence[int]) -> Iterator[tuple[str, Figure]]:
    """By file name; those for which there is something to draw."""
    yield from plots.overview(x).items()
    yield from plots.abilities(x).items()
    success = plots.editing(x)
    if success is not None:
        yield "editing", success
    chosen = maps.chosen_checkpoints(x, at)
    if chosen and x.measurable:
        yield "trade-off", trade_off(x)
        yield "heat-map", maps.heat_map(x, chosen)
        yield "drift", maps.drift_map(x)


def _section(x: Comparison, folder: Path, at: Sequence[int]) -> dict[str, Any]:
    _make(folder)
    numbers = tables.drops(x)
    shown = {"methods": tables.methods_table(x), "abilities": tables.abilities_table(x, numbers),
             "warnings": tables.warnings_table(x)}  # fmt: skip
    tidy = {"metrics": metrics_table(x.runs), LARGE: samples_table(x.runs), "curves": x.curves,
            "edits": edits_table(x.runs), "summaries": x.summaries, "drops": numbers,
            **({} if x.single else {"warnings": shown["warnings"]})}  # fmt: skip
    for name, table in tidy.items():
        table.to_parquet(folder / f"{name}.parquet", index=False)
        table.to_csv(folder / (f"{name}.csv.gz" if name == LARGE else f"{name}.csv"), index=False)
    images = {name: _saved(figure, folder / name) for name, figure in figures(x, at)}
    return {"x": x, "tables": shown, "images": images, "tests": int(numbers["p"].notna().sum()) if len(numbers) else 0}


def _saved(figure: Figure, stem: Path) -> str:
    """The picture as PNG and SVG; returns the SVG as a data URI, in which ids of other pictures cannot be met."""
    svg = io.BytesIO()
    with rc_context({"svg.hashsalt": stem.name}):  # the same numbers give the same file
        figure.savefig(svg, format="svg", metadata={"Date": None})
    figure.savefig(stem.with_name(f"{stem.name}.png"), dpi=120)
    plt.close(figure)
    stem.with_name(f"{stem.name}.svg").write_bytes(svg.getvalue())
    return "data:image/svg+xml;base64," + base64.b64encode(svg.getvalue()).decode()


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise BadResults(f"--out {folder}: the folder cannot be made ({problem.strerror}); give another") from None


def _template() -> Any:
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["records"] = lambda table: table.to_dict("records") if isinstance(table, pd.DataFrame) else []
    return environment.from_string(Path(__file__).with_name("template.html").read_text(encoding="utf-8"))
