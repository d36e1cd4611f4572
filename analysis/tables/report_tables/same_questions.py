"""Shows what the models said to the same questions before the edits and after some of them."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from afteredit.analysis.numbers.comparison import Comparison
from afteredit.analysis.report_part import Part
from afteredit.analysis.tables.same_questions import LOST, same_questions, shortened

PLACE = 45
N_ROWS = 8  # of each method
N_CHECKPOINTS = 4
LENGTH = 160  # of a text


def part(comparison: Comparison, _checkpoints: Sequence[int]) -> Part | None:
    tables = {label: same_questions(runs[0], N_CHECKPOINTS) for label, runs in comparison.runs.items()}
    tables = {label: table for label, table in tables.items() if len(table)}
    if not tables:
        return None
    counts = "; ".join(f"{label}: {(table['change'] == LOST).sum()} of {len(table)}" for label, table in tables.items())
    note = (f"Rows that were right and are wrong now come first ({counts}), then those that lost most. ✓ is right, ✗ "
            "wrong, a number the score of an answer that is neither. Of each method the first seed's run"
            f"{'; each model holds its own edits' if comparison.single else ''}. All answers, and the "
            "log-likelihood of every choice, are in samples.parquet beside this page.")  # fmt: skip
    shown = [table.head(N_ROWS).map(shortened, length=LENGTH).assign(method=label) for label, table in tables.items()]
    table = pd.concat(shown).fillna("")
    edits = sorted((name for name in table if name.startswith("after ")), key=lambda name: int(name.split()[1]))
    table["ability"] = table["ability"].map(comparison.ability_title)
    return Part("What the model said", note, table=table[["method", "ability", "row", "question", "wanted", *edits]])
