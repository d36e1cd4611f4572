"""Pairs the scores of examples before and after the edits, so that each example is compared with itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from afteredit.analysis.read.run import Run


def paired(runs: Sequence[Run], ability: str, n_edits: int, gold: bool = False) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns (before_S2N, after_S2N) of the N examples that all S runs have at 0 edits and at `n_edits`.

    The middle axis holds numerators and denominators.  `gold`: the gold answer's NLL instead of the headline score.
    None where a run has no such examples.
    """
    frames = [run.examples.get((ability, n)) for run in runs for n in (0, n_edits)]
    columns = [_scores(frame, gold) for frame in frames if frame is not None]
    if len(columns) < len(frames) or not frames:
        return None
    both = pd.concat(columns, axis=1, join="inner", keys=range(len(columns)))
    if both.empty:
        return None
    values_S22N = both.to_numpy(dtype=float).T.reshape(len(runs), 2, 2, len(both))
    return values_S22N[:, 0], values_S22N[:, 1]


def _scores(frame: pd.DataFrame, gold: bool) -> pd.DataFrame:
    if gold:
        return frame[["gold_nll"]].dropna().assign(one=1.0)
    return frame[["numerator", "denominator"]]
