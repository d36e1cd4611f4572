"""The eight abilities against lm-eval's own HFLM, in turns: python -m afteredit.bench.evaluation [DATA] [--limit N]

On SmolLM2, 64 rows of each set in DATA (the embedded rows where none is given).  Ours twice: `cold`, and `kept`, after
an edit, when the hidden states below the edited block are there from the first time.  HFLM at the best of a few batch
sizes, found on the first rows of each task and not counted; both score the same requests (gold answers' NLL, which HFLM
is not asked for, are left out).  Bound: every distinct beginning of a text once, one head product per answer token, at
the rate of this machine's matrix products; generated tokens run all blocks, `kept` prompts those from the edited one.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers.processors import TemplateProcessing

from afteredit.bench.machine import block_parameters, matrix_rate, seconds
from afteredit.bench.table import write_rows
from afteredit.command_line import compose
from afteredit.edit.lm import LM
from afteredit.edit.packed import packed
from afteredit.edit.update import LowRank, Update
from afteredit.evaluate.ability import BuiltAbility
from afteredit.evaluate.base_blocks import BaseBlocks
from afteredit.evaluate.harness import HarnessLM

BATCH_SIZES = (1, 4, 16)
N_TRIED = 8  # rows on which HFLM's batch size is chosen
CACHE_GIB = 4.0
TOLERANCE = 1e-4  # nats per token

Answers = list[Any]
Ask = Callable[[list[Instance]], Answers]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?", default="mini")
    parser.add_argument("--limit", type=int, default=64)
    arguments = parser.parse_args()
    x = compose(["model=smollm2", "task=all", f"data={arguments.data}", "tracker=none"])
    lm = x.model.load("cpu", "float32")
    layers = x.method.edited_layers(lm)
    lm.keep_base(layers)
    ours, theirs = HarnessLM(lm, BaseBlocks(lm, CACHE_GIB)), hflm(lm)
    rows = []
    for name, ability in x.tasks.items():
        built = BuiltAbility(name, ability, arguments.data, arguments.limit)
        built.task.build_all_requests(limit=arguments.limit, rank=0, world_size=1)
        rows.append(_measure(lm, layers[0], name, built.task.instances, ours, theirs))
        print(json.dumps(rows[-1]), flush=True)
    kinds = {"multiple choice": [r for r in rows if r["kind"] == "loglikelihood"],
             "generation": [r for r in rows if r["kind"] == "generate_until"], "all eight": rows}  # fmt: skip
    rate = matrix_rate(lm, 512)
    write_rows([summary(kind, state, of, rate) for kind, of in kinds.items() for state in ("cold", "kept")])


def _measure(lm: LM, layer: int, name: str, requests: list[Instance], ours: HarnessLM, theirs: HFLM) -> dict[str, Any]:
    """Seconds of each on one task's requests: theirs, ours cold, and after an edit ours kept; theirs and ours compared
    on the edited model too."""
    kind = requests[0].request_type
    ask_ours, ask_theirs = (getattr(model, kind) for model in (ours, theirs))
    theirs.batch_size_per_gpu = batch_size(theirs, ask_theirs, requests)
    hflm_s, expected = seconds(lambda: ask_theirs(requests))
    with packed(lm):
        cold_s, cold = seconds(lambda: ask_ours(requests))
    lm.apply(small_edit(lm, layer))
    with packed(lm):
        kept_s, kept = seconds(lambda: ask_ours(requests))
        uncached = getattr(HarnessLM(lm), kind)(requests)
    lm.restore()
    compared = compare(ours, requests, cold, expected)
    cold_flops, kept_flops = (flops(ours, requests, cold, lm.n_blocks - below) for below in (0, layer))
    assert kept == uncached, f"{name}: kept blocks changed an answer"
    return {
        "task": name, "kind": kind, "n": len(requests), "hflm_batch_size": theirs.batch_size_per_gpu,
        "hflm_s": hflm_s, "cold_s": cold_s, "kept_s": kept_s, "cold_flops": cold_flops, "kept_flops": kept_flops,
        **compared,
    }  # fmt: skip


def flops(ours: HarnessLM, requests: list[Instance], answers: Answers, n_blocks: int) -> float:
    """Of the matrix products that no sharing saves: `n_blocks` on what is given, all on what is generated."""
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


def batch_size(theirs: HFLM, ask: Ask, requests: list[Instance]) -> int:
    docs = sorted({request.doc_id for request in requests})[:N_TRIED]
    first = [request for request in requests if request.doc_id in docs]
    taken = {}
    for size in BATCH_SIZES:
        theirs.batch_size_per_gpu = size
        taken[size] = seconds(lambda: ask(first))[0]
    return min(taken, key=lambda size: taken[size])


def compare(ours: HarnessLM, requests: list[Instance], one: Answers, other: Answers) -> dict[str, float]:
    """Largest difference of log-likelihoods (nats per token); answers that differ."""
    worst, differ = 0.0, 0
    for request, a, b in zip(requests, one, other, strict=True):
        if isinstance(a, str):
            differ += a != b
            continue
        n_tokens = len(ours.tok_encode(request.args[1], add_special_tokens=False))
        worst = max(worst, abs(float(a[0]) - float(b[0])) / n_tokens)
        differ += a[1] != b[1]
    return {"worst_nats_per_token": worst, "answers_that_differ": differ}


def summary(kind: str, state: str, rows: list[dict[str, Any]], rate: float) -> dict[str, Any]:
    """`rate`: FLOP/s of matrix products here."""
    ours_s, hflm_s, n_flops = (sum(row[key] for row in rows) for key in (f"{state}_s", "hflm_s", f"{state}_flops"))
    return {
        "name": f"evaluation, {kind}, {state}", "ours_s": ours_s, "baseline_s": hflm_s, "speedup": hflm_s / ours_s,
        "bound_speedup": hflm_s * rate / n_flops, "gflops": n_flops / ours_s / 1e9, "machine_gflops": rate / 1e9,
        "n": sum(row["n"] for row in rows), "worst_nats_per_token": max(row["worst_nats_per_token"] for row in rows),
        "answers_that_differ": sum(row["answers_that_differ"] for row in rows),
        "tasks": {row["task"]: {"ours_s": row[f"{state}_s"], "hflm_s": row["hflm_s"],
                                "hflm_batch_size": row["hflm_batch_size"]} for row in rows},
    }  # fmt: skip


def hflm(lm: LM) -> HFLM:
    """lm-eval's own, on the same model, with a tokenizer that puts the model's start token in front."""
    tokenizer = copy.deepcopy(lm.tokenizer)
    (start,) = tokenizer.convert_ids_to_tokens(lm.start_ids)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{start} $A", special_tokens=[(start, lm.start_ids[0])]
    )
    return HFLM(pretrained=lm.model, tokenizer=tokenizer, add_bos_token=True, batch_size=1)


def small_edit(lm: LM, layer: int) -> Update:
    D, F = lm.widths(layer)
    torch.manual_seed(0)
    change = LowRank(1e-3 * torch.randn(D, 1, dtype=torch.float64), torch.randn(F, 1, dtype=torch.float64))
    return Update({lm.mlp_out_name(layer): change})


if __name__ == "__main__":
    main()
