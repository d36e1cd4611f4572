"""One run's curves in the terminal, a line of blocks each: ▇▇▇▅▂▁."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from afteredit.analysis.tables.run_tables import NOT_MEASURABLE
from afteredit.record.terminal import visible
from afteredit.store.line_shapes import abilities_of

BLOCKS = "▁▂▃▄▅▆▇█"
RETAINED, PERPLEXITY = "ability/retained", "drift/perplexity"
EDITING = {"editing/retained/generated/efficacy": "efficacy retained",
           "editing/retained/generated/neighbourhood": "neighbourhood"}  # fmt: skip


def text_curves(rows: Sequence[Mapping[str, Any]], width: int) -> Table:
    """Returns a table of the curves over the edits; each runs from its value at 0 edits to that in the last row.

    Shares and scores stand between 0 and the curve's top, at least 1 for shares; perplexity on a log scale.
    """
    last = rows[-1]["n_edits"]
    chance, measurable = rows[0].get("chance", {}), rows[0].get("measurable", [])
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold underline",
                  caption_justify="left")  # fmt: skip
    for heading in (f"measured {len(rows)} times", "at 0", f"0 … {last} edits", f"at {last}", "chance"):
        table.add_column(heading, justify="right" if heading[:2] in ("at", "ch") else "left", no_wrap=True)
    names = {f"ability/{name}": name for name in abilities_of(rows[0])}
    labels = {RETAINED: "abilities retained", **names, PERPLEXITY: "perplexity", **EDITING}
    for key, label in labels.items():
        values = [float(row.get(key, math.nan)) for row in rows]
        if all(map(math.isnan, values)):
            continue
        at_chance = key in names and label not in measurable
        curve = blocks([row["n_edits"] for row in rows], values, width, log=key == PERPLEXITY, full=key not in names)
        level = f"{chance[label]:.2f}" if label in chance else ""
        ends = [f"{value:,.1f}" if key == PERPLEXITY else f"{value:.3f}" for value in (values[0], values[-1])]
        style = "bold" if key == RETAINED else "dim" if at_chance else ""
        table.add_row(visible(label) + " *" * at_chance, ends[0], curve, ends[1], level, style=style)
        if at_chance:
            table.caption = NOT_MEASURABLE
    return table


def blocks(edits: Sequence[int], values: Sequence[float], width: int, *, log: bool = False, full: bool = False) -> str:
    """Returns a curve as `width` blocks, evenly over the edits; each shows the last value before it, or a space.

    `log`: from the least value to the greatest, on a log scale that spans a factor of two at least; else from 0 to the
    greatest, or with `full` to 1 at least.
    """
    finite = [value for value in values if math.isfinite(value)]
    if log:
        finite = [math.log2(value) for value in finite if value > 0]
        low = min(finite, default=0.0)
        high = max(low + 1, *finite, low + 1)
    else:
        low, high = 0.0, max([1.0 if full else 1e-9, *finite])
    shown = []
    for place in range(width):
        n_edits = edits[0] + (edits[-1] - edits[0]) * place / max(1, width - 1)
        value = [v for n, v in zip(edits, values, strict=True) if n <= n_edits][-1]
        if math.isnan(value):
            shown.append(" ")
            continue
        height = (math.log2(max(value, 1e-300)) if log else value) if math.isfinite(value) else high
        shown.append(BLOCKS[max(0, min(7, int((height - low) / (high - low) * 8)))])
    return "".join(shown)
