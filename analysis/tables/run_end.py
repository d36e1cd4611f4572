"""What a run leaves at its end: the picture, the numbers a sweep compares, the tables.  Reads result files only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table

from afteredit.analysis.numbers.run_summary import Results, editing_table, final_table, summarise
from afteredit.analysis.numbers.single_edits import mean_row, models_editing_table, models_table, summarise_models
from afteredit.analysis.pictures.run_curves import draw_curves


def at_end(
    results: Results, chance: Mapping[str, float], folder: Path, *, single: int | None, collapsed: Sequence[int]
) -> tuple[Path, dict[str, float], list[Table]]:
    """`single`: in setting=single, the edits of a batch, which are all that a measured model holds; else None.
    `collapsed`: after which numbers of edits the run found a collapse."""
    path, title = folder / "curves.png", folder.name
    if single is None:
        summary = summarise(results.rows, chance)
        if collapsed:
            summary["summary/collapse"] = min(collapsed)
        tables = [final_table(results, chance), editing_table(results)]
        return draw_curves(results.rows, chance, path, title), summary, tables
    first, *models = results.rows
    title = f"{title}: mean over {len(models)} models of {single} edit{'s' * (single > 1)} each"
    picture = draw_curves([first, mean_row(models, single)], chance, path, title)
    tables = [models_table(results, chance, collapsed), models_editing_table(results)]
    return picture, summarise_models(models, collapsed), tables
