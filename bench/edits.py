"""Compares seconds per edit with the plain path's (plain.py), alternating in one run:
python -m afteredit.bench.edits [key=value …]

It runs on SmolLM2 (or the overrides' model, device and dtype) and the embedded facts, in groups as a run with
setting=single makes them, each method with its own context prefixes.  Compared is the optimisation of v* or z;
`whole_edit_s` adds what ours then takes to the finished update: keys, solving, MEMIT's blocks in turn.  The bound is
the arithmetic that the optimisation cannot do without (blocks above the edited one, on the tokens from the subject's
last on), at the rate of this machine's matrix products.  Ours runs the edited block again too, which is not needed,
since the offset is added to its output; so the bound leaves it out.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor

from afteredit.bench.machine import block_parameters, matrix_rate, seconds
from afteredit.bench.plain import plain_offset
from afteredit.bench.table import PATH, results_option, write_rows
from afteredit.edit.editor import GROUPS_IN_WINDOW
from afteredit.edit.ingredients.target_value import TargetStream, TargetValue
from afteredit.edit.ingredients.value_prompts import value_rows
from afteredit.edit.ingredients.value_search import groups_of_like_length
from afteredit.edit.method import Given, Prepared
from afteredit.edit.methods.memit import Memit
from afteredit.edit.methods.rome import Rome
from afteredit.edit.request import EditRequest
from afteredit.edit.speed import Speed
from afteredit.launch.command_line import compose
from afteredit.model.lm import LM

TOGETHER = Speed().together


def flops(lm: LM, requests: Sequence[EditRequest], contexts: Sequence[str], layer: int, steps: Sequence[int]) -> float:
    """Counts the matrix products needed: forward for every loss, backward (to inputs alone) for all but the last."""
    block = block_parameters(lm, layer)
    head = lm.model.get_output_embeddings().weight.numel()
    total = 0.0
    for request, n_steps in zip(requests, steps, strict=True):
        rows = value_rows(lm, request, contexts)
        n_tokens = sum(len(row) - last for row, last in zip(rows.ids, rows.subject_lasts, strict=True))
        n_heads = len(rows.target) * len(contexts) + 1
        per_pass = 2 * ((lm.n_blocks - layer - 1) * block * n_tokens + head * n_heads)
        total += per_pass * (n_steps + 1 + n_steps)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of a run: model, device or dtype")
    parser.add_argument("--groups", type=int, default=GROUPS_IN_WINDOW,
                        help="of as many edits as are optimised at once")  # fmt: skip
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
        n_requests = arguments.groups * arguments.together
        groups = groups_of_like_length(lm, requests[:n_requests], arguments.together)
        rows = measure(lm, name, method, prepared, groups, arguments.together)
        write_rows(rows, arguments.results)


@dataclass
class Way:
    """Adds up one way to optimise: seconds of optimising and of whole edits, and the largest relative deviation."""

    search_s: float = 0.0
    whole_s: float = 0.0
    deviation: float = 0.0

    def find(
        self, lm: LM, method: Rome | Memit, requests: Sequence[EditRequest], prepared: Prepared, together: int
    ) -> dict[str, TargetValue | TargetStream]:
        """Returns the optimised values by request id."""
        search_s, values = seconds(partial(method.find_values, lm, requests, prepared, together))
        self.search_s += search_s
        self.whole_s += search_s + _finished_s(lm, method, requests, replace(prepared, values=values))
        return values

    def compare(self, value: TargetValue | TargetStream, start_D: Tensor, offset_D: Tensor) -> None:
        """Takes the deviation of a value's offset from the plain path's, relative to its norm."""
        ours_D = value.z_D - start_D if isinstance(value, TargetStream) else value.offset_D
        self.deviation = max(self.deviation, float((ours_D - offset_D).norm() / offset_D.norm()))


def measure(
    lm: LM, name: str, method: Rome | Memit, prepared: Prepared, groups: Sequence[Sequence[EditRequest]], together: int
) -> list[dict[str, Any]]:
    """Returns two rows: one edit at a time, and the edits of each group together."""
    layer, stream = _last_edited_layer(lm, method), isinstance(method, Memit)
    plain = partial(plain_offset, lm, contexts=prepared.contexts, layer=layer, settings=method, stream=stream)
    ways = {"one edit at a time": Way(), f"{together} independent edits together": Way()}
    alone, jointly = ways.values()
    plain_total_s, n_flops, n = 0.0, 0.0, sum(map(len, groups))
    if lm.device.type == "cuda":  # its first calls load what all later ones use
        plain(groups[0][0])
        _finished_s(lm, method, groups[0][:1], prepared)
    for group in groups:
        steps, offsets = [], {}
        for request in group:
            plain_s, offsets[request.id] = seconds(partial(plain, request))
            plain_total_s += plain_s
            value = alone.find(lm, method, [request], prepared, together)[request.id]
            alone.compare(value, *offsets[request.id])
            steps.append(int(value.diagnostics["steps"]))
        for request_id, value in jointly.find(lm, method, group, prepared, together).items():
            jointly.compare(value, *offsets[request_id])
        n_flops += flops(lm, group, prepared.contexts, layer, steps)
    rate = matrix_rate(lm, 512)
    return [
        {"name": f"{name}, {label}", "ours_s": way.search_s / n, "baseline_s": plain_total_s / n,
         "speedup": plain_total_s / way.search_s, "bound_speedup": plain_total_s * rate / n_flops,
         "gflops": n_flops / way.search_s / 1e9, "machine_gflops": rate / 1e9, "whole_edit_s": way.whole_s / n,
         "largest_relative_deviation": way.deviation, "n": n, "n_contexts": len(prepared.contexts)}
        for label, way in ways.items()
    ]  # fmt: skip


def _last_edited_layer(lm: LM, method: Rome | Memit) -> int:
    return lm.anatomy.mlp_out_names.index(method.edited(lm)[-1])


def _finished_s(lm: LM, method: Rome | Memit, requests: Sequence[EditRequest], prepared: Prepared) -> float:
    """Returns the seconds from the optimised values to the updates, each for the unedited model."""
    total = 0.0
    for request in requests:
        total += seconds(partial(method.update, lm, [request], prepared, {}))[0]
    return total


if __name__ == "__main__":
    main()
