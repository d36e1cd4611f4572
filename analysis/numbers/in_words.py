"""Says in three sentences what happened to the models of a comparison."""

from __future__ import annotations

import math

from afteredit.analysis.numbers.comparison import Comparison
from afteredit.analysis.numbers.method_names import edit_set, model_name
from afteredit.analysis.numbers.run_values import common_checkpoints, mean_over, number
from afteredit.analysis.read.run import Run


def last_common(comparison: Comparison) -> int:
    """Returns the greatest number of edits after which every run of every method was measured."""
    return max(set.intersection(*(set(common_checkpoints(runs)) for runs in comparison.runs.values())))


def in_words(comparison: Comparison) -> list[str]:
    """Returns what was done, what is left of the abilities after as many edits as all methods have, and of the edits.

    Of several methods the best and the worst are named.  Nothing where nothing was measured after an edit.
    """
    n_edits = last_common(comparison)
    if n_edits == 0:
        return []
    how = f"in batches into {model_name(comparison.first)}, each into the unedited model" if comparison.single else (
        f"into {model_name(comparison.first)}, one after another")  # fmt: skip
    said = [f"{n_edits} facts of {edit_set(comparison.first)} were written {how}, by {_list(list(comparison.runs))}."]
    left = {label: mean_over(runs, n_edits, number("ability/retained")) for label, runs in comparison.runs.items()}
    for values, text in ((left, _abilities), (_perplexities(comparison, n_edits), _perplexity)):
        known = {label: value for label, value in values.items() if not math.isnan(value)}
        if known:
            best, worst = max(known, key=lambda label: known[label]), min(known, key=lambda label: known[label])
            if text is _perplexity:
                best, worst = worst, best
            ends = [best] if known[best] == known[worst] else [best, worst]
            said.append(f"After them {'; '.join(text(label, known[label]) for label in ends)}.")
    return [*said, *_collapses(comparison)]


def _abilities(label: str, share: float) -> str:
    return f"{label} leaves {100 * share:.0f} % of the general abilities above chance"


def _perplexity(label: str, ratio: float) -> str:
    return f"with {label} the perplexity of ordinary text is {ratio:.3g} times the unedited model's"


def _perplexities(comparison: Comparison, n_edits: int) -> dict[str, float]:
    value = number("drift/perplexity")
    return {label: mean_over(runs, n_edits, lambda run, row: value(run, row) / value(run, run.rows[0]))
            for label, runs in comparison.runs.items()}  # fmt: skip


def _collapses(comparison: Comparison) -> list[str]:
    ended: dict[str, list[Run]] = {
        label: [run for run in runs if run.collapsed_at is not None] for label, runs in comparison.runs.items()
    }
    parts = [f"{label} after {min(run.collapsed_at or 0 for run in runs)} edits" for label, runs in ended.items() if runs]
    return [f"The model collapsed with {_list(parts)}."] if parts else []


def _list(words: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
