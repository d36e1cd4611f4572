"""Times the eight abilities and lm-eval's own HFLM in turns: python -m afteredit.bench.evaluation [DATA] [--limit N]

It runs SmolLM2 on 64 rows of each set in DATA (on the embedded rows where none is given).  Ours runs twice: `cold`,
and `kept`, after an edit, when the hidden states below the edited block are there from the first time.  HFLM runs at
its best batch size, which is found for each task before and not counted (hflm.py).  Both score the same requests (not
the NLL of gold answers, which HFLM is not asked for).  HFLM is compared on the unedited model; after the edit, `kept`
must give exactly what our own pass gives that keeps nothing.  The bound is every distinct beginning of a text once
and one head product per answer token, at the rate of this machine's matrix products; generated tokens run all blocks,
`kept` prompts those from the edited one.

Finished tasks wait in bench/evaluation-tasks.jsonl, from which a bench that was stopped goes on; without that file it
starts over.  It ends with an error where answers differ that must not (difference.py).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import normalize_gen_kwargs

from afteredit.bench.difference import (
    Difference,
    complaints,
    margin_of_greedy,
    margin_of_texts,
    of_likelihoods,
    of_texts,
    totals,
)
from afteredit.bench.hflm import best_answers, hflm
from afteredit.bench.machine import block_parameters, matrix_rate, seconds
from afteredit.bench.table import results_option, write_rows
from afteredit.edit.methods.rome import Rome
from afteredit.edit.update import LowRank, Update
from afteredit.evaluate.abilities.built_ability import BuiltAbility
from afteredit.evaluate.abilities.lm_eval_model import MAX_NEW_TOKENS, LmEvalModel
from afteredit.evaluate.inference.kept_blocks import KeptBlocks
from afteredit.launch.command_line import compose
from afteredit.model.lm import LM
from afteredit.store.checked_lines import Lines

CACHE_GIB = 4.0
KINDS = {"multiple choice": ("loglikelihood",), "generation": ("generate_until",),
         "all tasks": ("loglikelihood", "generate_until")}  # fmt: skip

Answers = list[Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?", default="mini")
    parser.add_argument("--limit", type=int, default=64)
    parser.add_argument("--tasks", default="all", help="all, or names between commas")
    results_option(parser)
    arguments = parser.parse_args()
    named = arguments.tasks if arguments.tasks == "all" else f"[{arguments.tasks}]"
    x = compose(["model=smollm2", f"task={named}", f"data={arguments.data}", "tracker=none"])
    lm = x.model.load("cpu", "float32")
    assert isinstance(x.method, Rome)
    layer = x.method.edited_layer(lm)
    lm.weights.keep_base([lm.mlp_out_name(layer)])
    ours, theirs = LmEvalModel(lm, KeptBlocks(lm, CACHE_GIB)), hflm(lm)
    finished = Lines(arguments.results.with_name("evaluation-tasks.jsonl"))
    settings = {"data": arguments.data, "limit": arguments.limit}
    rows = []
    for name, ability in x.tasks.items():
        row = finished_row(finished.records, {"task": name, **settings})
        if row is None:
            built = BuiltAbility(name, ability, arguments.data, arguments.limit)
            built.task.build_all_requests(limit=arguments.limit, rank=0, world_size=1)
            row = {"task": name, **settings, **measure(lm, layer, built.task.instances, ours, theirs)}
            finished.append(row)
        print(json.dumps(row), flush=True)
        rows.append(row)
    write_rows(summary_rows(rows, matrix_rate(lm, 512)), arguments.results)
    finished.path.unlink()
    wrong = complaints(rows)
    if wrong:
        sys.exit("\n".join(wrong))


def finished_row(rows: Sequence[dict[str, Any]], wanted: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the first row that holds all of `wanted`."""
    return next((row for row in rows if all(row.get(key) == value for key, value in wanted.items())), None)


def measure(lm: LM, layer: int, requests: list[Instance], ours: LmEvalModel, theirs: HFLM) -> dict[str, Any]:
    """Returns seconds on one task's requests: HFLM's, ours cold, and ours kept, after an edit of block `layer`."""
    kind = requests[0].request_type

    def answered(by: LmEvalModel) -> Answers:
        return list(getattr(by, kind)(requests))

    size, hflm_s, expected = best_answers(theirs, requests)
    cold_s, cold = seconds(lambda: answered(ours))
    lm.weights.add(small_edit(lm, layer).changes)
    kept_s, kept = seconds(lambda: answered(ours))
    uncached = answered(LmEvalModel(lm))
    lm.weights.restore()
    difference = compare(ours, requests, cold, expected)
    cold_flops, kept_flops = (flops(ours, requests, cold, lm.n_blocks - below) for below in (0, layer))
    return {
        "kind": kind, "n": len(requests), "hflm_batch_size": size,
        "hflm_s": hflm_s, "cold_s": cold_s, "kept_s": kept_s, "cold_flops": cold_flops, "kept_flops": kept_flops,
        "worst_nats_per_token": difference.worst_nats_per_token,
        "answers_that_differ": len(difference.margins),
        "unexplained_differences": difference.n_unexplained, "margins": difference.margins,
        "kept_differences": sum(a != b for a, b in zip(kept, uncached, strict=True)),
    }  # fmt: skip


def compare(ours: LmEvalModel, requests: list[Instance], ours_answers: Answers, their_answers: Answers) -> Difference:
    """Compares two lists of answers, on the model as it is now."""
    lm = ours.lm
    if requests[0].request_type == "generate_until":

        def margin(i: int) -> float:
            text, rule = requests[i].args
            n_tokens = normalize_gen_kwargs(dict(rule), MAX_NEW_TOKENS)["max_gen_toks"]
            context = ours.tok_encode(text)[-(ours.max_length - n_tokens) :]
            return margin_of_texts(lm, context, (ours_answers[i], their_answers[i]), n_tokens)

        return of_texts(ours_answers, their_answers, margin)
    pairs = [ours._encode_pair(*request.args) for request in requests]
    n_tokens = [len(continuation) for _, continuation in pairs]
    return of_likelihoods(requests, ours_answers, their_answers, n_tokens, lambda i: margin_of_greedy(lm, *pairs[i]))


def flops(ours: LmEvalModel, requests: list[Instance], answers: Answers, n_blocks: int) -> float:
    """Counts the matrix products that no sharing saves: `n_blocks` on what is given, all on what is generated."""
    lm = ours.lm
    beginnings: set[int] = set()
    n_generated = n_answers = 0
    for request, answer in zip(requests, answers, strict=True):
        if isinstance(answer, str):
            ids = ours.tok_encode(request.args[0])
            n_tokens = len(ours.tok_encode(answer, add_special_tokens=False))
            n_generated += n_tokens
        else:
            context, continuation = ours._encode_pair(*request.args)
            ids, n_tokens = [*context, *continuation[:-1]], len(continuation)
        n_answers += n_tokens
        beginning = 0
        for token in ids:
            beginning = hash((beginning, token))
            beginnings.add(beginning)
    block, head = block_parameters(lm, 0), lm.model.get_output_embeddings().weight.numel()
    return 2.0 * (block * (n_blocks * len(beginnings) + lm.n_blocks * n_generated) + head * n_answers)


def summary_rows(rows: Sequence[dict[str, Any]], rate: float) -> list[dict[str, Any]]:
    """Returns rows, cold and kept, for each kind of task there is.  `rate`: FLOP/s of matrix products here."""
    summaries = []
    for kind, types in KINDS.items():
        rows_of_kind = [row for row in rows if row["kind"] in types]
        summaries += [summary(kind, state, rows_of_kind, rate) for state in ("cold", "kept") if rows_of_kind]
    return summaries


def summary(kind: str, state: str, rows: Sequence[dict[str, Any]], rate: float) -> dict[str, Any]:
    ours_s, hflm_s, n_flops = (sum(row[key] for row in rows) for key in (f"{state}_s", "hflm_s", f"{state}_flops"))
    compared = totals(rows) if state == "cold" else {}
    return {
        "name": f"evaluation, {kind}, {state}", "ours_s": ours_s, "baseline_s": hflm_s, "speedup": hflm_s / ours_s,
        "bound_speedup": hflm_s * rate / n_flops, "gflops": n_flops / ours_s / 1e9, "machine_gflops": rate / 1e9,
        "n": sum(row["n"] for row in rows), **compared,
        "tasks": {row["task"]: {"ours_s": row[f"{state}_s"], "hflm_s": row["hflm_s"],
                                "hflm_batch_size": row["hflm_batch_size"]} for row in rows},
    }  # fmt: skip


def small_edit(lm: LM, layer: int) -> Update:
    D, F = lm.widths(layer)
    torch.manual_seed(0)
    change = LowRank(1e-3 * torch.randn(D, 1, dtype=torch.float64), torch.randn(F, 1, dtype=torch.float64))
    return Update({lm.mlp_out_name(layer): change})


if __name__ == "__main__":
    main()
