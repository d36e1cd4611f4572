"""Measures the rate of this machine's matrix products, from which bounds are computed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from afteredit.model.lm import LM


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def matrix_rate(lm: LM, n_rows: int) -> float:
    """Returns FLOP/s of the model's own MLP matrix product at `n_rows` rows, the best of ten."""
    W_DF = lm.weights.W(lm.mlp_out_name(0))
    weight_DF = W_DF.to(lm.model.dtype)
    keys_NF = torch.randn(n_rows, W_DF.shape[1]).to(weight_DF)

    def product() -> None:
        keys_NF @ weight_DF.T
        if lm.device.type == "cuda":
            torch.cuda.synchronize(lm.device)

    return 2 * keys_NF.numel() * W_DF.shape[0] / min(seconds(product)[0] for _ in range(10))


def block_parameters(lm: LM, layer: int) -> int:
    """Returns the number of parameters in the matrices of one block."""
    return sum(p.numel() for p in lm.anatomy.blocks[layer].parameters() if p.ndim == 2)
