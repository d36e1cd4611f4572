"""Drift: how far weights and held-out text have moved from the unedited model."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from afteredit.evaluate.inference.batches import Ids
from afteredit.evaluate.inference.kept_blocks import BaseBlocks
from afteredit.evaluate.inference.likelihood import score
from afteredit.model.lm import LM

LENGTH = 256  # tokens of one held-out window


def held_out_windows(lm: LM, text: str, n_tokens: int) -> list[tuple[Ids, Ids]]:
    """(context, continuation) windows over the first `n_tokens` of the text, each token predicted once."""
    ids = lm.tokenizer(text, add_special_tokens=False).input_ids[:n_tokens]
    start = tuple(lm.tokens.start_ids)
    windows = []
    for at in range(0, len(ids), LENGTH):
        window = (*start, *ids[at : at + LENGTH])
        if len(window) > 1:
            windows.append((window[:1], window[1:]))
    return windows


def drift(lm: LM, windows: list[tuple[Ids, Ids]], base: BaseBlocks | None = None) -> dict[str, float]:
    """`drift/perplexity` (exp of nats per token) and, per edited block, ‖W−W₀‖/‖W₀‖ and σ_max(W)."""
    log_p = [value for scored in score(lm, windows, base) for value in scored.log_p]
    row = {"drift/perplexity": math.exp(min(-sum(log_p) / len(log_p), 700.0))}
    for layer in range(lm.n_blocks):
        name = lm.mlp_out_name(layer)
        if name in lm.weights.base:
            W_DF, base_DF = lm.weights.W(name).float(), lm.weights.base[name].float()
            row[f"drift/{layer}/relative_norm"] = float((W_DF - base_DF).norm() / base_DF.norm())
            row[f"drift/{layer}/spectral_norm"] = spectral_norm(W_DF)
    return row


def spectral_norm(W_DF: Tensor) -> float:
    """σ_max, as the root of the largest eigenvalue of W Wᵀ in float64: some tenth of the time of the singular values.
    NaN where a weight is not finite."""
    if not W_DF.isfinite().all():
        return math.nan
    W_DF = W_DF.double()
    gram = W_DF @ W_DF.T if W_DF.shape[0] <= W_DF.shape[1] else W_DF.T @ W_DF
    return math.sqrt(max(float(torch.linalg.eigvalsh(gram)[-1]), 0.0))
