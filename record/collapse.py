"""The collapse rule: an update that is not finite or could not be made, or a perplexity past its limit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

BROKEN = "an update held NaN or infinity, or could not be made"


def broke(edit: Mapping[str, Any]) -> bool:
    """Tells whether the update of a journal's record held NaN or infinity, or could not be made at all."""
    return "collapsed" in edit.get("diagnostics", {})


def is_past_limit(row: Mapping[str, Any], unedited: Mapping[str, Any], limit: float) -> bool:
    """Tells whether the perplexity of a checkpoint's row is NaN or above `limit` times the unedited model's.

    Rows without a perplexity are never past it.
    """
    before, now = (r.get("drift/perplexity") for r in (unedited, row))
    return before is not None and now is not None and not now <= limit * before


def collapses(edits: Iterable[Mapping[str, Any]], rows: Iterable[Mapping[str, Any]], limit: float) -> dict[int, str]:
    """Returns the numbers of edits after which the model had collapsed, in order, each with the condition that was met.

    `edits` are the journal's records and `rows` the checkpoints'; without the row at 0 edits no perplexity is judged.
    """
    rows = list(rows)
    met = {}
    for unedited in (row for row in rows if row["n_edits"] == 0):
        met = {int(row["n_edits"]): _past_limit_in_words(row, unedited, limit)
               for row in rows if is_past_limit(row, unedited, limit)}  # fmt: skip
    met |= {int(edit["n_edits"]): BROKEN for edit in edits if broke(edit)}
    return dict(sorted(met.items()))


def _past_limit_in_words(row: Mapping[str, Any], unedited: Mapping[str, Any], limit: float) -> str:
    before, now = (r["drift/perplexity"] for r in (unedited, row))
    if math.isnan(now):
        return "perplexity is NaN"
    first, last = (f"{value:,.0f}" if 1e4 <= value < 1e9 else f"{value:,.4g}" for value in (before, now))
    return f"perplexity {last} is above {limit:g} times the unedited model's {first}"
