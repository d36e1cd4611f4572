"""One question that one method's model still answers and another's no more: what both say, before and after."""

from __future__ import annotations

from afteredit.analysis.numbers.comparison import Comparison
from afteredit.analysis.numbers.in_words import last_common
from afteredit.analysis.tables.same_questions import LOST, same_questions, shortened
from afteredit.record.terminal import so_many_edits

LENGTH = 160  # characters of a text


def one_question(comparison: Comparison) -> list[tuple[str, str]]:
    """Returns a question and its answers, each with its name: by the unedited model, and by those of the methods that
    lost fewest and most rows (their first seeds), after as many edits as all methods have.

    The question is one that the first still answers rightly and the second no more.  Empty where there is none.
    """
    n_edits = last_common(comparison)
    last = f"after {n_edits}"
    tables = {label: same_questions(runs[0].up_to(n_edits), 2)
              for label, runs in comparison.runs.items()}  # fmt: skip
    said = {label: table.set_index(["ability", "row"]) for label, table in tables.items()
            if len(table) and {"after 0", last} <= set(table)}  # fmt: skip
    if not said:
        return []
    n_lost = {label: int((table["change"] == LOST).sum()) for label, table in said.items()}
    best, worst = (pick(n_lost, key=lambda label: n_lost[label]) for pick in (min, max))
    right = said[best].index[said[best][last].str.startswith("✓")]
    lost = said[worst][said[worst]["change"] == LOST]
    found = lost[lost.index.isin(right) & (lost["question"] != "")]
    if found.empty:
        return []
    texts = {"asked": found.iloc[0]["question"], "before any edit": found.iloc[0]["after 0"]}
    texts |= {
        f"after {so_many_edits(n_edits)} by {name}": said[name].loc[found.index[0], last] for name in (best, worst)
    }
    return [(name, shortened(text, LENGTH)) for name, text in texts.items()]
