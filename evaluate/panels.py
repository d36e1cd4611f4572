"""Which edits retention is measured on, and what the measured ones say about all."""

from __future__ import annotations

import random
from collections.abc import Sequence

from afteredit.edit.request import EditRequest

PANEL_SIZE = 100  # edits in each of the three panels


def panels(edits: Sequence[EditRequest], seed: int) -> list[EditRequest]:
    """Returns the first 100, the last 100 and a seeded random 100 of the edits, each once, in order."""
    return [edits[i] for i in _places(len(edits), seed)]


def stands_for(edits: Sequence[EditRequest], seed: int) -> dict[str, float]:
    """Returns, by id, of how many edits each one in the panels speaks: the first and the last hundred for themselves,
    the random ones between them for all that stand there.  With these weights a mean is unbiased over all edits."""
    n, places = len(edits), _places(len(edits), seed)
    between = [i for i in places if PANEL_SIZE <= i < n - PANEL_SIZE]
    share = (n - 2 * PANEL_SIZE) / len(between) if between else 1.0
    return {edits[i].id: share if PANEL_SIZE <= i < n - PANEL_SIZE else 1.0 for i in places}


def _places(n: int, seed: int) -> list[int]:
    drawn = random.Random(seed).sample(range(n), min(PANEL_SIZE, n))
    return sorted({*range(min(PANEL_SIZE, n)), *range(max(0, n - PANEL_SIZE), n), *drawn})
