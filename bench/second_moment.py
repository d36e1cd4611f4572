"""Second moments: one pass for all layers, stopped after the last, against full forward passes; and what few tokens
cost in precision: python -m afteredit.bench.second_moment [TEXT]

With TEXT (WikiText-2, say) also the error of 9 tokens per key dimension against 20 times as many.
"""

from __future__ import annotations

import argparse
import time
from itertools import islice

import torch

from afteredit.bench.table import write_rows
from afteredit.command_line import compose
from afteredit.edit.lm import LM
from afteredit.edit.second_moment import BATCH, LENGTH, estimate, sequences

ROUNDS = 3
FEW, MANY = 9, 180  # tokens per key dimension


@torch.no_grad()
def full_passes(lm: LM, rows: list[list[int]]) -> None:
    for start in range(0, len(rows), BATCH):
        lm.model(input_ids=torch.tensor(rows[start : start + BATCH]), use_cache=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", nargs="?")
    text = parser.parse_args().text
    x = compose(["model=smollm2", "method=memit"])
    lm = x.model.load("cpu", "float32")
    layers = x.method.edited_layers(lm)
    width = lm.widths(layers[0])[1]
    rows = list(sequences(lm, text or "sampled", FEW * width))[: 2 * BATCH]
    ours_s = full_s = 0.0
    for _ in range(ROUNDS):
        started = time.perf_counter()
        estimate(lm, layers, iter(rows))
        between = time.perf_counter()
        full_passes(lm, rows)
        ours_s, full_s = ours_s + between - started, full_s + time.perf_counter() - between
    n_tokens = ROUNDS * len(rows) * LENGTH
    row = {
        "name": f"second moments of {len(layers)} layers", "ours_s": ours_s, "baseline_s": full_s,
        "speedup": full_s / ours_s, "tokens_per_s": n_tokens / ours_s, "full_pass_tokens_per_s": n_tokens / full_s,
        # nothing below the last layer can be left out: blocks of all against blocks up to the last
        "bound_speedup": lm.n_blocks / (max(layers) + 1),
    }  # fmt: skip
    if text:
        every = list(sequences(lm, text, (FEW + MANY) * width))
        n_few = -(-FEW * width // LENGTH)
        few, many = estimate(lm, layers, iter(every[:n_few])), estimate(lm, layers, islice(every, n_few, None))
        errors = [float((few[layer] - many[layer]).norm() / many[layer].norm()) for layer in layers]
        row |= {
            "relative_error_of_few": sum(errors) / len(errors),
            "few_per_dimension": FEW,
            "many_per_dimension": MANY,
        }
    write_rows([row])


if __name__ == "__main__":
    main()
