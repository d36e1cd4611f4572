"""Seconds per edit, against the plain path (plain.py), alternating in one run: python -m afteredit.bench.edits
[key=value …]

On SmolLM2 (or the overrides' model, device and dtype) and the embedded facts, in groups as a run with setting=single
makes them, each method with its own context prefixes, read once for all (edits that follow one another read them each
time).  Compared is the optimisation of v* or z; `whole_edit_s` adds what ours then takes to the finished update: keys,
solving, MEMIT's blocks in turn.  As in a run, every edit is applied
and taken back, so that the next packs the matrices anew that it changed.  Bound: the arithmetic that is left of the
optimisation (blocks above the edited one, on the tokens from the subject's last on), at the rate of this machine's
matrix products.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from afteredit.bench.machine import block_parameters, matrix_rate, seconds
from afteredit.bench.plain import plain_offset
from afteredit.bench.table import PATH, results_option, write_rows
from afteredit.edit.editor import GROUPS_IN_WINDOW
from afteredit.edit.ingredients.target_value import Target, Value
from afteredit.edit.ingredients.value_prompts import value_prompts
from afteredit.edit.ingredients.value_search import REQUESTS_PER_PLACE, group_size, groups_of_like_length
from afteredit.edit.method import Given, Prepared
from afteredit.edit.methods.memit import Memit
from afteredit.edit.methods.rome import Rome
from afteredit.edit.request import EditRequest
from afteredit.edit.speed import Speed
from afteredit.launch.command_line import compose
from afteredit.model.lm import LM

TOGETHER = Speed().together


def flops(lm: LM, requests: Sequence[EditRequest], contexts: Sequence[str], layer: int, steps: Sequence[int]) -> float:
    """Of matrix products that remain: forward on every loss, backward (to the inputs alone) on all but the last."""
    block = block_parameters(lm, layer)
    head = lm.model.get_output_embeddings().weight.numel()
    total = 0.0
    for request, n_steps in zip(requests, steps, strict=True):
        prompts = value_prompts(lm, request, contexts)
        n_tokens = sum(len(row) - last for row, last in zip(prompts.rows, prompts.subject_lasts, strict=True))
        n_heads = len(prompts.target) * len(contexts) + 1
        per_pass = 2 * ((lm.n_blocks - layer - 1) * block * n_tokens + head * n_heads)
        total += per_pass * (n_steps + 1 + n_steps)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of a run: model, device, dtype")
    parser.add_argument("--groups", type=int, default=GROUPS_IN_WINDOW,
                        help=f"of {REQUESTS_PER_PLACE} times as many edits as go together")  # fmt: skip
    parser.add_argument("--together", type=int, default=TOGETHER, help="edits optimised at once")
    results_option(parser)
    arguments = parser.parse_args()
    if arguments.overrides and arguments.results == PATH:
        parser.error("the repository's table is of the defaults; with overrides give --results=<another file>")
    x = compose(arguments.overrides)
    requests, _ = x.edits.read(x.settings.data, x.settings.seed)
    lm = x.model.load("cpu" if x.settings.device == "auto" else x.settings.device, x.settings.dtype.value)
    rome, memit = (compose([*arguments.overrides, f"method={name}"]).method for name in ("rome", "memit"))
    assert isinstance(rome, Rome) and isinstance(memit, Memit)
    for name, method in (("ROME", rome), ("MEMIT", memit)):
        prepared = method.prepare(lm, Given(x.settings.seed, list))
        lm.weights.keep_base(method.edited(lm))
        n_requests = arguments.groups * group_size(arguments.together)
        groups = groups_of_like_length(lm, requests[:n_requests], arguments.together)
        rows = measure(lm, name, method, prepared, groups, arguments.together)
        write_rows(rows, arguments.results)


def measure(
    lm: LM, name: str, method: Rome | Memit, prepared: Prepared, groups: Sequence[Sequence[EditRequest]],
    together: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """Two rows: one edit at a time, and the edits of each group together."""
    layer, stream = _last_edited_layer(lm, method), isinstance(method, Memit)
    whole = {"alone": 0.0, "together": 0.0}  # optimisation and the rest
    spent = {"plain": 0.0, "alone": 0.0, "together": 0.0}  # optimisation
    n_flops, n = 0.0, sum(map(len, groups))
    worst = {"alone": 0.0, "together": 0.0}  # deviation from the plain path's offset, relative to it
    if lm.device.type == "cuda":  # whose first calls load what all later ones use
        plain_offset(lm, groups[0][0], prepared.contexts, layer, method, stream=stream)
        _finished_s(lm, method, groups[0][:1], prepared)
    for group in groups:
        steps, offsets = [], {}
        for request in group:
            plain = partial(plain_offset, lm, request, prepared.contexts, layer, method, stream=stream)
            plain_s, (start_D, offset_D) = seconds(plain)
            alone_s, found = seconds(partial(method.find_values, lm, [request], prepared, together))
            whole["alone"] += alone_s + _finished_s(lm, method, [request], replace(prepared, values=found))
            spent["plain"] += plain_s
            spent["alone"] += alone_s
            offsets[request.id] = start_D, offset_D
            steps.append(int(found[request.id].diagnostics["steps"]))
            worst["alone"] = max(worst["alone"], _deviation(found[request.id], start_D, offset_D))
        together_s, found = seconds(partial(method.find_values, lm, group, prepared, together))
        whole["together"] += together_s + _finished_s(lm, method, group, replace(prepared, values=found))
        spent["together"] += together_s
        deviations = [_deviation(found[name], *plain_path) for name, plain_path in offsets.items()]
        worst["together"] = max(worst["together"], *deviations)
        n_flops += flops(lm, group, prepared.contexts, layer, steps)
    rate = matrix_rate(lm, 512)
    return [
        {"name": f"{name}, {how}", "ours_s": spent[key] / n, "baseline_s": spent["plain"] / n,
         "speedup": spent["plain"] / spent[key], "bound_speedup": spent["plain"] * rate / n_flops,
         "gflops": n_flops / spent[key] / 1e9, "machine_gflops": rate / 1e9, "whole_edit_s": whole[key] / n,
         "largest_relative_deviation": worst[key], "n": n, "n_contexts": len(prepared.contexts)}
        for key, how in (("alone", "one edit at a time"), ("together", f"{together} independent edits together"))
    ]  # fmt: skip


def _last_edited_layer(lm: LM, method: Rome | Memit) -> int:
    return lm.anatomy.mlp_out_names.index(method.edited(lm)[-1])


def _deviation(found: Value | Target, start_D: Tensor, offset_D: Tensor) -> float:
    ours_D = found.z_D - start_D if isinstance(found, Target) else found.offset_D
    return float((ours_D - offset_D).norm() / offset_D.norm())


def _finished_s(lm: LM, method: Rome | Memit, requests: Sequence[EditRequest], prepared: Prepared) -> float:
    """Seconds from optimised values to the updates, each on the unedited model."""
    total = 0.0
    for request in requests:
        taken_s, update = seconds(partial(method.update, lm, [request], prepared, {}))
        lm.weights.add(update.changes)
        lm.weights.restore()
        total += taken_s
    return total


if __name__ == "__main__":
    main()
