"""How many tokens a pass computes and how many columns are held at once: what a CPU does best, and a rule for
accelerators.

A pass reads all weights however few tokens it has, so it should have as many as keep every multiprocessor at work:
    tokens  = TOKENS_PER_PROCESSOR · multiprocessors, and no more than a share of the memory left beside the weights
    columns = what another share of it holds of keys and values, 2 · blocks · width numbers each
A pass besides its tokens costs the same share of its budget as on a CPU.  Only what never changes on a device enters,
so that the same rows stand together, and give the same bits, whenever a run goes on there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from afteredit.evaluate.inference import batches
from afteredit.evaluate.inference.batches import Budgets
from afteredit.model.lm import LM
from afteredit.model.weights import matrix_shape

TOKENS_PER_PROCESSOR = 64
SHARE_FOR_TOKENS, SHARE_FOR_COLUMNS = 1 / 8, 1 / 4  # of the memory beside the weights
LEAST_TOKENS, LEAST_COLUMNS = 64, 1024


@dataclass(frozen=True)
class Device:
    """What a budget depends on."""

    memory: int  # bytes, of all the model's devices
    processors: int  # multiprocessors of the one that has the fewest


def budgets_of(lm: LM) -> Budgets:
    """Returns the budgets for a model where it is."""
    devices = {parameter.device for parameter in lm.model.parameters()}
    if any(device.type != "cuda" for device in devices):
        return Budgets(batches.TOKEN_BUDGET, batches.CACHE_BUDGET, batches.PASS_TOKENS)
    n_bytes = sum(parameter.nbytes for parameter in lm.model.parameters())
    return rule(device_of(devices), n_bytes, *bytes_of(lm))


def device_of(devices: Iterable[torch.device]) -> Device:
    """Returns what CUDA says of the devices."""
    properties = [torch.cuda.get_device_properties(device) for device in devices]
    return Device(sum(each.total_memory for each in properties), min(each.multi_processor_count for each in properties))


def bytes_of(lm: LM) -> tuple[int, int]:
    """Returns the bytes that a token needs while it is computed (a block's MLP and stream, and logits in float32 with
    what is made of them), and those that a column's keys and values need, at most."""
    embedding_VD = lm.model.get_input_embeddings().weight
    itemsize = embedding_VD.dtype.itemsize
    width, inner = matrix_shape(lm.mlp_out(0))
    return itemsize * (4 * inner + 8 * width) + 12 * len(embedding_VD), itemsize * 2 * lm.n_blocks * width


def rule(device: Device, weights: int, token: int, column: int) -> Budgets:
    """Returns the budgets of an accelerator; `weights`, `token` and `column` are bytes."""
    left = max(device.memory - weights, 0)
    tokens = max(int(min(TOKENS_PER_PROCESSOR * device.processors, left * SHARE_FOR_TOKENS // token)), LEAST_TOKENS)
    columns = max(int(left * SHARE_FOR_COLUMNS // column), LEAST_COLUMNS)
    return Budgets(tokens, columns, tokens * batches.PASS_TOKENS // batches.TOKEN_BUDGET)
