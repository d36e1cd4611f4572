"""Estimates by arithmetic the share of a GPT-J run's time that is neither editing nor evaluating.

No such run was made.  It would be MEMIT on its six published blocks, in bfloat16, one fact after another, with the
whole published sets before the first edit and after every `eval_every`.  What its parts take on one H100 was measured
on random weights of this shape (docs/results/full-size) and is scaled up here.  Evaluation is scaled by its rows: from
32 rows on, passes hold as many tokens as they may.  Text and second moments, which are made once per model and kept for
all its runs, are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

BAR = 0.03
D, F = 4096, 16384
LAYERS = (3, 4, 5, 6, 7, 8)  # conf/model/gptj.yaml
FACTOR_BYTES = 4 * len(LAYERS) * (D + F)  # of one edit: a column and a row in float32 for each block
MASTER_BYTES = 4 * len(LAYERS) * D * F  # of the edited matrices in float32, which every checkpoint hashes


@dataclass(frozen=True)
class Assumed:
    """Holds what the arithmetic assumes, beside the model's shape."""

    n_edits: int = 100
    eval_every: int = 10
    # GSM8K, RTE, NQ-open, BoolQ, MuTual, SAMSum, CoNLL-2003 and SST-2, the splits of conf/task
    n_rows: int = 1319 + 277 + 3610 + 3270 + 886 + 819 + 3453 + 872
    edit_s: float = 3.4  # the median of seven
    row_s: float = 0.035  # of the eight abilities: 256 rows in the 12 s of a checkpoint, less the 3 s of one with none
    loading_s: float = 16.0
    constants_s: float = 21.0  # six second moments read and factorised, context prefixes


def gptj_share(journal_s: float, hash_s: float, other_s: float, assumed: Assumed) -> dict[str, float]:
    """Returns seconds, the share, and the number of evaluated rows above which the share is below BAR.

    Three seconds are measured: `journal_s` to write one edit of FACTOR_BYTES to this disk, `hash_s` to hash
    MASTER_BYTES, and `other_s`, what is neither editing nor evaluating in a whole SmolLM2 run (imports, building tasks,
    tracking, pictures)."""
    n_checkpoints = 1 + -(-assumed.n_edits // assumed.eval_every)
    edits_s = assumed.n_edits * assumed.edit_s
    evaluating_s = n_checkpoints * assumed.n_rows * assumed.row_s
    started_s = assumed.loading_s + assumed.constants_s
    neither_s = started_s + assumed.n_edits * journal_s + n_checkpoints * hash_s + other_s
    total_s = edits_s + evaluating_s + neither_s
    least_evaluating_s = neither_s / BAR - neither_s - edits_s
    return {
        "arithmetic_s": total_s, "arithmetic_share": neither_s / total_s,
        "rows_from_which_under_bar": assumed.n_rows * least_evaluating_s / evaluating_s, "editing_s": edits_s,
        "evaluating_s": evaluating_s, "journal_s": assumed.n_edits * journal_s, "hash_s": n_checkpoints * hash_s,
        "started_s": started_s, "other_s": other_s,
    }  # fmt: skip
