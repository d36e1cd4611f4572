"""Seconds per edit, against the plain path (plain.py), alternating in one run: python -m afteredit.bench.edits

On SmolLM2 and the embedded facts, in the groups that a run with setting=single makes of them.  Bound: the arithmetic
that is left (blocks from the edited one up, on the tokens from the subject's last on), at the rate of this machine's
matrix products.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from afteredit.bench.machine import block_parameters, matrix_rate, seconds
from afteredit.bench.plain import plain_offset
from afteredit.bench.table import write_rows
from afteredit.command_line import compose
from afteredit.edit.ahead import WINDOW, of_like_length
from afteredit.edit.contexts import sample_contexts
from afteredit.edit.lm import LM
from afteredit.edit.memit import Memit
from afteredit.edit.request import EditRequest
from afteredit.edit.rome import Rome
from afteredit.edit.value import optimise_targets, optimise_values, value_prompts

TOGETHER = 8
N_CONTEXTS = 10


def flops(lm: LM, requests: Sequence[EditRequest], contexts: Sequence[str], layer: int, steps: Sequence[int]) -> float:
    """Of matrix products that remain: forward on every loss, backward (to the inputs alone) on all but the last."""
    block = block_parameters(lm, layer)
    head = lm.model.get_output_embeddings().weight.numel()
    total = 0.0
    for request, n_steps in zip(requests, steps, strict=True):
        prompts = value_prompts(lm, request, contexts)
        n_tokens = sum(len(row) - last for row, last in zip(prompts.rows, prompts.subject_lasts, strict=True))
        n_heads = len(prompts.target) * len(contexts) + 1
        per_pass = 2 * ((lm.n_blocks - layer) * block * n_tokens + head * n_heads)
        total += per_pass * (n_steps + 1 + n_steps)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", type=int, default=1, help=f"of {TOGETHER} edits, of the {WINDOW} in a window")
    groups = parser.parse_args().groups
    x = compose(["model=smollm2", "tracker=none"])
    requests, _ = x.edits.read(x.settings.data, x.settings.seed)
    lm = x.model.load("cpu", "float32")
    rome, memit = x.method, compose(["model=smollm2", "method=memit"]).method
    assert isinstance(rome, Rome) and isinstance(memit, Memit)
    rows = [
        _measure(lm, "ROME", requests, groups, optimise_values, rome, rome.edited_layers(lm)[-1], False),
        _measure(lm, "MEMIT", requests, groups, optimise_targets, memit, memit.edited_layers(lm)[-1], True),
    ]
    write_rows([row for pair in rows for row in pair])


def _measure(
    lm: LM,
    name: str,
    requests: Sequence[EditRequest],
    groups: int,
    optimise: Any,
    settings: Any,
    layer: int,
    stream: bool,
) -> list[dict[str, Any]]:
    contexts = sample_contexts(lm, {5: N_CONTEXTS // 2, 10: N_CONTEXTS // 2}, seed=0)
    spent = {"plain": 0.0, "alone": 0.0, "together": 0.0}
    n_flops, worst = 0.0, 0.0
    window = of_like_length(lm, requests[: WINDOW * TOGETHER], TOGETHER)
    for group in window[1 : 1 + groups]:  # the middle ones first
        steps = []
        for request in group:
            plain_s, (start_D, offset_D) = seconds(
                lambda r=request: plain_offset(lm, r, contexts, layer, settings, stream=stream)
            )
            alone_s, (found,) = seconds(lambda r=request: optimise(lm, [r], contexts, layer, settings))
            spent["plain"] += plain_s
            spent["alone"] += alone_s
            steps.append(int(found.diagnostics["steps"]))
            ours_D = found.z_D - start_D if stream else found.offset_D
            worst = max(worst, float((ours_D - offset_D).norm() / offset_D.norm()))
        together_s, _ = seconds(lambda group=group: optimise(lm, group, contexts, layer, settings))
        spent["together"] += together_s
        n_flops += flops(lm, group, contexts, layer, steps)
    n = groups * TOGETHER
    bound_s = n_flops / matrix_rate(lm, 512) / n
    return [
        {"name": f"{name}, {how}", "ours_s": spent[key] / n, "baseline_s": spent["plain"] / n,
         "speedup": spent["plain"] / spent[key], "bound_speedup": spent["plain"] / n / bound_s,
         "gflops": n_flops / spent[key] / 1e9, "machine_gflops": matrix_rate(lm, 512) / 1e9,
         "largest_relative_deviation": worst, "n": n}
        for key, how in (("alone", "one edit at a time"), ("together", f"{TOGETHER} independent edits together"))
    ]  # fmt: skip


if __name__ == "__main__":
    main()
