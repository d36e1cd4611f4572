"""How much of an ability a model has retained: its score above chance, as a share of the unedited model's.

Reads rows of results and the scores of examples only, so that it serves the program and the report alike.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from afteredit.evaluate.intervals import interval

RETAINED = "retained"  # the name of the mean over abilities, which no ability may have
PAPER = "paper_"  # opens the names of the abilities that are scored as Gu et al. did


def share_left(score: float, base: float, chance: float) -> float:
    """Returns (score − chance) / (base − chance): 1 where the unedited score `base` is reached, 0 at chance.

    NaN where the unedited model stands at chance: there is nothing to keep.
    """
    if base == chance:
        return math.nan
    return float((score - chance) / (base - chance))


def retained_mean(
    row: Mapping[str, Any], base: Mapping[str, Any], names: Sequence[str], chance: Mapping[str, float]
) -> float | None:
    """Returns the mean share left of the abilities `names` in `row`, given the row `base` at 0 edits; None of no names.

    `names` are those of `of_one_scoring`.
    """
    shares = [share_left(row[f"ability/{name}"], base[f"ability/{name}"], chance[name]) for name in names]
    return sum(shares) / len(shares) if shares else None


def of_one_scoring(measurable: Sequence[str], asked: Collection[str]) -> list[str]:
    """Returns the measurable abilities that are averaged: not the paper's scorings where others are asked too.

    The two score other answers of the same ability, which would count twice.
    """
    clean = [name for name in asked if not name.startswith(PAPER)]
    return [name for name in measurable if name in (clean or asked)]


def measurable(samples: Sequence[Mapping[str, Any]], chance: Mapping[str, float]) -> list[str]:
    """Returns the abilities whose score on these samples stands above chance with its whole 95 % interval."""
    names = []
    for name, level in chance.items():
        examples = [sample for sample in samples if sample["kind"] == "ability" and sample["name"] == name]
        numerators, denominators = ([e[key] for e in examples] for key in ("numerator", "denominator"))
        if examples and interval(numerators, denominators)[0] > level:
            names.append(name)
    return names
