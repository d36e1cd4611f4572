"""Keys and residual streams at the subject's last token, read off in one pass that ends where nothing more is needed.

By causality no token after the subject's last one changes them, so rows are cut there.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from afteredit.edit.ingredients.context_prefixes import locate_subject
from afteredit.edit.request import EditRequest
from afteredit.model.hooks import EndOfPass, hooked
from afteredit.model.lm import LM
from afteredit.model.tensors import first, pad

AT_ONCE = 64  # rows of one pass, however many facts a batch holds


def subject_keys(lm: LM, requests: Sequence[EditRequest], contexts: Sequence[str], layer: int) -> Tensor:
    """Returns each request's key, (F, E) float32: half the bare prompt's, half the mean over the other contexts.

    That is MEMIT's reference: a mean over kinds of contexts, of which the bare prompt is one.  ROME's plain mean over
    all contexts is in value_search.py.
    """
    keys: list[Tensor] = []

    def read(_module: Any, args: tuple, _kwargs: dict) -> None:
        keys.append(args[0][:, -1].float())
        raise EndOfPass

    with hooked(before={lm.mlp_out(layer): read}):
        _run_to_subject(lm, [(request, context) for request in requests for context in contexts])
    keys_ECF = torch.cat(keys).view(len(requests), len(contexts), -1)
    bare = list(contexts).index("")
    others = [i for i in range(len(contexts)) if i != bare]
    bare_EF = keys_ECF[:, bare]
    return (bare_EF if not others else (bare_EF + keys_ECF[:, others].mean(1)) / 2).T


def subject_streams(lm: LM, requests: Sequence[EditRequest], layer: int) -> Tensor:
    """Returns the residual stream after block `layer` under the bare prompt, (D, E) float32."""
    return _subject_outputs(lm, requests, lm.anatomy.blocks[layer])


def subject_mlp_outputs(lm: LM, requests: Sequence[EditRequest], layer: int) -> Tensor:
    """Returns the output of the MLP's matrix in block `layer` under the bare prompt, (D, E) float32."""
    return _subject_outputs(lm, requests, lm.mlp_out(layer))


def _subject_outputs(lm: LM, requests: Sequence[EditRequest], module: nn.Module) -> Tensor:
    outputs: list[Tensor] = []

    def read(_module: Any, _args: tuple, output: Any) -> None:
        outputs.append(first(output)[:, -1].float())
        raise EndOfPass

    with hooked({module: read}):
        _run_to_subject(lm, [(request, "") for request in requests])
    return torch.cat(outputs).T


@torch.no_grad()
def _run_to_subject(lm: LM, prompts: Sequence[tuple[EditRequest, str]]) -> None:
    """Runs the model on each request under its context prefix, up to the subject's last token."""
    rows = []
    for request, context in prompts:
        ids, last = locate_subject(lm, request, context)
        rows.append(ids[: last + 1])
    at_once = AT_ONCE if lm.capabilities.reads_on_from_cache else 1  # such a model reads no row beside padding
    for start in range(0, len(rows), at_once):
        # padded on the left, so that every subject ends in the last column
        ids_BT, mask_BT = pad(rows[start : start + at_once], "left")
        with suppress(EndOfPass):
            lm.forward(ids_BT, mask_BT)
