"""Compares our pass for second moments, one for all layers, with full forward passes; and few tokens with many:
python -m afteredit.bench.second_moment [TEXT …]

With TEXT (WikiText-2, say) it also measures the error of the default's 10 tokens per key dimension, compared with up to
200 that follow them in the joined texts.  (WikiText-2's test text alone holds 188 more for SmolLM2; against all 198, of
which the few are a twentieth, the error is by arithmetic a twentieth smaller.)  Sampled text does not serve: writing 20
times the default's takes SmolLM2 some 20 minutes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from afteredit.bench.machine import block_parameters, matrix_rate
from afteredit.bench.table import results_option, write_rows
from afteredit.edit.ingredients.sampled_text import LENGTH, sequences
from afteredit.edit.ingredients.second_moment import BATCH, estimate
from afteredit.edit.methods.memit import Memit
from afteredit.launch.command_line import compose
from afteredit.model.lm import LM
from afteredit.store.errors import BadInput

ROUNDS = 3
FEW, MANY = 10, 200  # tokens per key dimension


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("texts", nargs="*", type=Path, metavar="TEXT")
    parser.add_argument("--few", type=int, default=FEW)
    parser.add_argument("--many", type=int, default=MANY)
    results_option(parser)
    arguments = parser.parse_args()
    x = compose(["model=smollm2", "method=memit"])
    lm = x.model.load("cpu", "float32")
    assert isinstance(x.method, Memit)
    layers = x.method.edited_layers(lm)
    width = lm.widths(layers[0])[1]
    with tempfile.TemporaryDirectory() as folder:
        text = "sampled"
        if arguments.texts:
            joined = Path(folder) / "joined.txt"
            joined.write_bytes(b"\n".join(path.read_bytes() for path in arguments.texts))
            text = str(joined)
        row = speed(lm, layers, first_rows(lm, text, FEW * width)[: 2 * BATCH])
        every = first_rows(lm, text, (arguments.few + arguments.many) * width) if arguments.texts else []
    if every:
        row |= error_of_few(lm, layers, every, -(-arguments.few * width // LENGTH), arguments.many * width // LENGTH)
    write_rows([row], arguments.results)


def first_rows(lm: LM, text: str, n_tokens: int) -> list[list[int]]:
    """Returns `n_tokens` tokens of `text` in rows, or all that it holds."""
    rows = []
    try:
        for row in sequences(lm, text, n_tokens):
            rows.append(row)
    except BadInput:
        if not rows:
            raise
    return rows


def speed(lm: LM, layers: Sequence[int], rows: list[list[int]]) -> dict[str, Any]:
    ours_s = full_s = 0.0
    for _ in range(ROUNDS):
        started = time.perf_counter()
        estimate(lm, layers, iter(rows))
        between = time.perf_counter()
        full_passes(lm, rows)
        ours_s, full_s = ours_s + between - started, full_s + time.perf_counter() - between
    n_tokens = ROUNDS * len(rows) * LENGTH
    n_flops = 2 * n_tokens * sum(block_parameters(lm, block) for block in range(max(layers) + 1))
    return {
        "name": f"second moments of {len(layers)} layers", "ours_s": ours_s, "baseline_s": full_s,
        "speedup": full_s / ours_s, "tokens_per_s": n_tokens / ours_s, "full_pass_tokens_per_s": n_tokens / full_s,
        # nothing below the last layer can be left out: blocks of all against blocks up to the last
        "bound_speedup": lm.n_blocks / (max(layers) + 1),
        "gflops": n_flops / ours_s / 1e9, "machine_gflops": matrix_rate(lm, 512) / 1e9,
    }  # fmt: skip


@torch.no_grad()
def full_passes(lm: LM, rows: list[list[int]]) -> None:
    for start in range(0, len(rows), BATCH):
        lm.model(input_ids=torch.tensor(rows[start : start + BATCH]), use_cache=False)


def error_of_few(lm: LM, layers: Sequence[int], rows: list[list[int]], n_few: int, n_many: int) -> dict[str, float]:
    """Returns |few − many| / |many| (Frobenius), mean over layers: the first `n_few` rows, and up to `n_many` after."""
    many_rows = rows[n_few : n_few + n_many]
    few, many = estimate(lm, layers, iter(rows[:n_few])), estimate(lm, layers, iter(many_rows))
    errors = [float((few[layer] - many[layer]).norm() / many[layer].norm()) for layer in layers]
    per_row = LENGTH / lm.widths(layers[0])[1]
    return {
        "relative_error_of_few": sum(errors) / len(errors),
        "few_per_dimension": n_few * per_row,
        "many_per_dimension": len(many_rows) * per_row,
    }


if __name__ == "__main__":
    main()
