"""MEMIT on Gemma 3 270M: how far the answers come, by the weight of the second moment and the length of x.

python docs/results/behind-a-norm/measure.py <gemma-3-270m.gguf> <text>: the first two embedded facts, block 4.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import torch

from afteredit.edit.ingredients import layer_by_layer
from afteredit.edit.ingredients.least_squares import before_norm
from afteredit.launch.command_line import compose
from afteredit.launch.console import new_console
from afteredit.launch.opening import load_model, prepare


def nearest(wanted_DE: torch.Tensor, now_DE: torch.Tensor, scale_D: torch.Tensor) -> torch.Tensor:
    """Returns the x of the same direction that is nearest to `now`."""
    x_DE = before_norm(wanted_DE, now_DE, scale_D)
    along_E = torch.nn.functional.cosine_similarity(x_DE, now_DE.double(), dim=0)
    return torch.where(along_E > 0, along_E, 1) * x_DE


@torch.no_grad()
def nll(lm, requests) -> list[float]:
    values = []
    for request in requests:
        ids, _ = lm.tokens.locate(request.question, request.subject_start, len(request.subject))
        answer = lm.tokens.answer_ids(request.target_new, request.question)
        row_BT = torch.tensor([[*ids, *answer]])
        hidden_TD = lm.forward(row_BT, torch.ones_like(row_BT))[0, len(ids) - 1 : -1]
        log_p = lm.logits(hidden_TD).log_softmax(-1)[range(len(answer)), answer]
        values.append(round(-float(log_p.mean()), 2))
    return values


x = compose(["model=hf", f"model.source={sys.argv[1]}", "method=memit", "method.layers=[4]", "method.contexts=1",
             f"method.second_moment_text={sys.argv[2]}", "method.tokens_per_key_dim=5", "method.value_steps=15",
             "n_edits=2", "batch_size=2", "eval_every=2", "task=none", "tracker=none"])  # fmt: skip
lm = load_model(x, new_console(x))
requests = x.edits.read("mini", 0)[0][:2]
prepared = prepare(x, lm)
targets = x.method.find_values(lm, requests, prepared, 8)
prepared = replace(prepared, values=targets)
print("before", nll(lm, requests), "with z itself", [round(t.diagnostics["nll_after"], 2) for t in targets.values()])
for name, solve in (("nearest", nearest), ("as long", before_norm)):
    layer_by_layer.before_norm = solve
    for weight in (15000, 1000, 100, 1):
        method = replace(x.method, second_moment_weight=float(weight))
        update = method.update(lm, requests, prepared, {})
        with lm.weights.undone(x.method.edited(lm)):
            lm.weights.add(update.changes)
            print(name, weight, round(update.diagnostics["missing_share"], 3), nll(lm, requests))
