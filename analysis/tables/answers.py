"""What the model said before and after its edits, where they are so few that a reader may want to read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

FEW = 5  # facts
NAMES = {
    "efficacy": "prompt",
    "paraphrase": "other words",
    "portability": "follows from it",
    "neighbourhood": "neighbour",
}


def answers_table(edits: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Returns a table of every prompt of the edits with the greedy text after it, by the unedited model and right after
    the prompt's own edit; none where the facts are more than a few, or no texts were kept."""
    texts = [text for edit in edits for text in edit.get("generated", []) if text.get("group") in NAMES]
    if not texts or sum(len(edit["requests"]) for edit in edits) > FEW:
        return []
    table = Table(title="what the model says, before any edit and right after the fact's own")
    for heading in ("", "asked", "before", "after"):
        table.add_column(heading)
    for text in texts:
        if text["group"] == "efficacy":
            table.add_section()
        table.add_row(NAMES[text["group"]], *(_in_one_line(text.get(key)) for key in ("prompt", "before", "after")))
    return [table]


def _in_one_line(text: Any) -> str:
    return " ".join(str(text).split()) or "(nothing)"
