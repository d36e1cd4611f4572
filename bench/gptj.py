"""By arithmetic: the share of a GPT-J run's time that is neither editing nor evaluating.

No such run was made.  MEMIT on its six published blocks, bfloat16, one fact after another, the whole published sets
before the first and after every `eval_every`.  What an edit and the constants take was measured on random weights of
this shape (docs/results/full-size).  Evaluating is reckoned, without attention's products with keys and values, the
heads of scored answers, and that generated tokens wait for memory, not for arithmetic, which makes the share larger
than it would be.  Left out of the rest: what is made once per model and kept for all its runs (text, second moments).
"""

from __future__ import annotations

from dataclasses import dataclass

BAR = 0.03
PARAMETERS = 6.05e9
N_BLOCKS, D, F, VOCABULARY = 28, 4096, 16384, 50400
LAYERS = (3, 4, 5, 6, 7, 8)  # conf/model/gptj.yaml
BLOCK = 4 * D * D + 2 * D * F  # parameters in the matrices of one block
FACTOR_BYTES = 4 * len(LAYERS) * (D + F)  # of one edit: a column and a row in float32 for each block
MASTER_BYTES = 4 * len(LAYERS) * D * F  # of the edited matrices in float32, which every checkpoint hashes


@dataclass(frozen=True)
class Assumed:
    """What the arithmetic stands on beside the model's shape."""

    n_edits: int = 100
    eval_every: int = 10
    # GSM8K, RTE, NQ-open, BoolQ, MuTual, SAMSum, CoNLL-2003 and SST-2, the splits of conf/task
    n_rows: int = 1319 + 277 + 3610 + 3270 + 886 + 819 + 3453 + 872
    tokens_per_row: int = 70  # given, behind the shared few-shot examples; choices included
    generated_per_row: int = 20  # the mean over all, of which five in eight are answered by a text
    edit_s: float = 3.3  # measured on an H100, docs/results/full-size: the middle of 3.0 to 3.9
    gpu_flops: float = 1e14  # FLOP/s: a third of an A100's peak in bfloat16
    disk_bytes_per_s: float = 1e9  # at which weights are read
    weight_bytes: int = 2  # per parameter: bfloat16
    constants_s: float = 21.0  # to read and factorise six second moments: measured, docs/results/full-size


def gptj_share(journal_s: float, hash_s: float, other_s: float, assumed: Assumed) -> dict[str, float]:
    """`journal_s`: measured seconds to write one edit of FACTOR_BYTES to this disk; `hash_s`: to hash MASTER_BYTES.
    `other_s`: measured seconds of a whole SmolLM2 run that are neither editing nor evaluating (imports, building tasks,
    tracking, pictures).

    Returns seconds, the share, and the rows evaluated from which on the share is below BAR."""
    n_checkpoints = 1 + -(-assumed.n_edits // assumed.eval_every)
    edits_s = assumed.n_edits * assumed.edit_s
    evaluating_s = n_checkpoints * checkpoint_flops(assumed) / assumed.gpu_flops
    reading_s = PARAMETERS * assumed.weight_bytes / assumed.disk_bytes_per_s
    neither_s = assumed.n_edits * journal_s + n_checkpoints * hash_s + other_s + reading_s + assumed.constants_s
    total_s = edits_s + evaluating_s + neither_s
    least_evaluating_s = neither_s / BAR - neither_s - edits_s
    return {
        "arithmetic_s": total_s, "arithmetic_share": neither_s / total_s,
        "rows_from_which_under_bar": assumed.n_rows * least_evaluating_s / evaluating_s, "editing_s": edits_s,
        "evaluating_s": evaluating_s, "journal_s": assumed.n_edits * journal_s, "hash_s": n_checkpoints * hash_s,
        "reading_weights_s": reading_s, "constants_s": assumed.constants_s,
        "other_s": other_s,
    }  # fmt: skip


def checkpoint_flops(assumed: Assumed) -> float:
    """Of the blocks from the lowest edited one up, the lower ones' results being kept; all blocks on new tokens."""
    given = (N_BLOCKS - LAYERS[0]) * BLOCK * assumed.tokens_per_row
    generated = (N_BLOCKS * BLOCK + VOCABULARY * D) * assumed.generated_per_row
    return 2.0 * assumed.n_rows * (given + generated)
