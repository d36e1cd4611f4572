"""Says in a few sentences what happened to the models of a comparison."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from afteredit.analysis.numbers.comparison import Comparison
from afteredit.analysis.numbers.method_names import edit_set, model_in_words
from afteredit.analysis.numbers.run_values import common_checkpoints, mean_over, number
from afteredit.record.terminal import so_many_edits


def last_common(comparison: Comparison) -> int:
    """Returns the greatest number of edits after which every run of every method was measured."""
    return max(set.intersection(*(set(common_checkpoints(runs)) for runs in comparison.runs.values())))


def in_words(comparison: Comparison) -> list[str]:
    """Returns at most three sentences: what was done, what is left after as many edits as all methods have, and
    perplexity, with which models collapsed.

    Of several methods the best and the worst are named.  Nothing where nothing was measured after an edit.
    """
    n_edits, first = last_common(comparison), comparison.first
    if n_edits == 0:
        return []
    how = "each batch into the unedited model" if comparison.single else "one after another"
    facts, were = ("1 fact", "was") if n_edits == 1 else (f"{n_edits} facts", "were")
    done = (f"{facts} (edit set {edit_set(first)}) {were} written into {model_in_words(first)}, {how}, by "
            f"{_list(list(comparison.runs))}.")  # fmt: skip
    perplexity, retained = number("drift/perplexity"), number("ability/retained", 100)
    left = {label: mean_over(runs, n_edits, retained) for label, runs in comparison.runs.items()}
    ratios = {label: mean_over(runs, n_edits, lambda run, row: perplexity(run, row) / perplexity(run, run.rows[0]))
              for label, runs in comparison.runs.items()}  # fmt: skip
    kept = _sentence("Left of the general abilities, above chance", left, min, " %")
    read = _sentence("Perplexity of ordinary text, as a multiple of the unedited model's", ratios, max, "")
    *before, last = [done, *kept, *read]
    return [*before, last.removesuffix(".") + _collapses(comparison) + "."]


def _sentence(what: str, values: Mapping[str, float], worst: Callable[..., str], unit: str) -> list[str]:
    """Returns a sentence on the methods that did least and most harm; none where there are no values."""
    known = {label: value for label, value in values.items() if not math.isnan(value)}
    if not known:
        return []
    best = min if worst is max else max
    ends = dict.fromkeys(pick(known, key=lambda label: known[label]) for pick in (best, worst))
    numbers = {label: f"{known[label]:#.3g}".rstrip(".") for label in ends}  # 1.00, and not 1
    return [f"{what}: {', '.join(f'{text}{unit} with {label}' for label, text in numbers.items())}."]


def _collapses(comparison: Comparison) -> str:
    ends = {label: [(n, run.collapsed[n]) for run in runs if (n := run.collapsed_at) is not None]
            for label, runs in comparison.runs.items()}  # fmt: skip
    first = {label: min(met) for label, met in ends.items() if met}
    parts = [f"with {label} after {so_many_edits(n)} ({condition})" for label, (n, condition) in first.items()]
    return f"; the model collapsed {_list(parts)}" if parts else ""


def _list(words: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
