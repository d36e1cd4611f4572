"""Shows what the models said to the same questions before the edits and after some of them."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from afteredit.analysis.numbers.comparison import Comparison
from afteredit.analysis.report_part import Part
from afteredit.analysis.tables.same_questions import LOST, same_questions, shortened

PLACE = 45
N_ROWS = 8  # of each method, where they cannot be searched
MOST = 200  # of each run, where they can
N_CHECKPOINTS = 4
LENGTH = 160  # of a text, where they cannot be searched
LONGEST = 700


def part(comparison: Comparison, _checkpoints: Sequence[int]) -> Part | None:
    said = [(label, run, table) for label, runs in comparison.runs.items() for run in runs
            if len(table := same_questions(run, N_CHECKPOINTS))]  # fmt: skip
    if not said:
        return None
    first = {label: table for label, _, table in reversed(said)}
    first = {label: first[label] for label in comparison.runs if label in first}
    counts = "; ".join(f"{label}: {(table['change'] == LOST).sum()} of {len(table)}" for label, table in first.items())
    note = (f"Rows that were right and are wrong now come first ({counts}, of the first seed), then those that lost "
            "most. ✓ is right, ✗ wrong, a number the score of an answer that is neither. Of each run at most "
            f"{MOST} rows that changed can be searched; on paper {N_ROWS} of each method's first seed are shown"
            f"{'; each model holds its own edits' if comparison.single else ''}. All answers, and the "
            "log-likelihood of every choice, are in samples.parquet beside this page.")  # fmt: skip
    changed = [(label, run, table[table["change"] != "same"].head(MOST)) for label, run, table in said]
    examples = [table.map(_cut).assign(method=label, run=f"{label}, seed {run.seed}") for label, run, table in changed]
    shown = [table.head(N_ROWS).map(shortened, length=LENGTH).assign(method=label) for label, table in first.items()]
    table, edits = _together(shown, comparison)
    return Part("What the model said", note, table=table[["method", "ability", "row", "question", "wanted", *edits]],
                examples=_together(examples, comparison)[0])  # fmt: skip


def _together(tables: Sequence[pd.DataFrame], comparison: Comparison) -> tuple[pd.DataFrame, list[str]]:
    """Returns all rows with the abilities' titles, and the names of the columns of answers in order."""
    table = pd.concat(tables, ignore_index=True).fillna("")
    table["ability"] = table["ability"].map(comparison.ability_title)
    return table, sorted((name for name in table if name.startswith("after ")), key=lambda name: int(name.split()[1]))


def _cut(text: str) -> str:
    """Returns the text without its middle where it is longer than a reader needs: questions stand at the end."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 3]} … {text[LONGEST // 3 - LONGEST :]}"
