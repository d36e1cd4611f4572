"""Drift: how far the weights, and the predictions on held-out text, have moved from the unedited model."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from afteredit.evaluate.inference.batches import Ids
from afteredit.evaluate.inference.kept_blocks import KeptBlocks
from afteredit.evaluate.inference.likelihood import score
from afteredit.evaluate.settings import names_of_shares
from afteredit.model.lm import LM


def drift(lm: LM, windows: list[tuple[Ids, Ids]], kept_blocks: KeptBlocks | None = None,
          change_shares: Sequence[float] = ()) -> dict[str, float]:  # fmt: skip
    """Returns `drift/perplexity` (exp of nats per token) and, per edited block, ‖W−W₀‖/‖W₀‖ and σ_max(W).

    `change_shares`: adds what `entries_moved` says of them.
    """
    log_p = [value for scores in score(lm, windows, kept_blocks) for value in scores.log_p]
    row = {"drift/perplexity": math.exp(min(-sum(log_p) / len(log_p), 700.0))}
    for layer in range(lm.n_blocks):
        name = lm.mlp_out_name(layer)
        if name in lm.weights.base:
            W_DF, base_DF = lm.weights.W(name).float(), lm.weights.base[name].float()
            moved, base = (torch.linalg.vector_norm(X_DF, dtype=torch.float64) for X_DF in (W_DF - base_DF, base_DF))
            row[f"drift/{layer}/relative_norm"] = float(moved / base)
            row[f"drift/{layer}/spectral_norm"] = spectral_norm(W_DF)
            row |= {f"drift/{layer}/{key}": value for key, value in entries_moved(W_DF, base_DF, change_shares).items()}
    return row


def entries_moved(W_DF: Tensor, base_DF: Tensor, shares: Sequence[float]) -> dict[str, float]:
    """Returns `manhattan`, Σ|W−W₀|, and per share `moved_<share>`, the part of the entries with |W−W₀| > share·|W₀|.

    Gu et al. (EMNLP 2024, analysis_statistics.png) have shares .077 and .171.  Nothing where none is given.
    """
    if not shares:
        return {}
    moved_DF = (W_DF.double() - base_DF.double()).abs()
    return {"manhattan": float(moved_DF.sum()),
            **{f"moved_{name}": float((moved_DF > share * base_DF.double().abs()).double().mean())
               for name, share in names_of_shares(shares).items()}}  # fmt: skip


def spectral_norm(W_DF: Tensor) -> float:
    """Returns σ_max; NaN where a weight is not finite.

    It is the root of the largest eigenvalue of W Wᵀ in float64, which takes a tenth of the time of the singular values.
    """
    if not W_DF.isfinite().all():
        return math.nan
    W_DF = W_DF.double()
    gram = W_DF @ W_DF.T if W_DF.shape[0] <= W_DF.shape[1] else W_DF.T @ W_DF
    return math.sqrt(max(float(torch.linalg.eigvalsh(gram)[-1]), 0.0))
