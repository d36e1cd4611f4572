"""C = E[k kᵀ]: the uncentred second moment of keys (Meng et al., 2022, eq. 2), estimated on a text, once per model.

One forward pass serves all layers and ends after the last of them.  Few tokens do: 10 per key dimension here, where the
reference uses some 10,000 (FastMEMIT, arXiv 2506.04226, finds 10 per dimension enough; our own measurement is in
docs/results/second-moment).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from afteredit.edit.ingredients.sampled_text import identity, sequences
from afteredit.model.hooks import EndOfPass, hooked
from afteredit.model.lm import LM
from afteredit.store.user_cache import content_hash, made_once

BATCH = 32  # rows of one forward pass


def second_moments(lm: LM, layers: Sequence[int], text: str, tokens_per_dim: int) -> tuple[dict[int, Tensor], str]:
    """Returns C (F, F) float32 per layer, and the hash that names the cached file.

    `text` is as in `sequences`.  Raises BadInput where it cannot be had or holds fewer tokens than needed.
    """
    n_tokens = tokens_per_dim * max(lm.widths(layer)[1] for layer in layers)
    decides = {"model": lm.fingerprint, "layers": list(layers), "text": identity(text), "tokens": n_tokens}
    digest = content_hash(decides)

    def make(path: Path) -> None:
        moments = estimate(lm, layers, sequences(lm, text, n_tokens))
        save_file({str(layer): moment.float() for layer, moment in moments.items()}, path)

    stored = load_file(made_once(f"second_moment/{digest}.safetensors", make))
    return {layer: stored[str(layer)] for layer in layers}, digest


@torch.no_grad()
def estimate(lm: LM, layers: Sequence[int], rows: Iterable[list[int]]) -> dict[int, Tensor]:
    """Returns per layer the mean of k kᵀ over all tokens of `rows` (all of one length), summed in float64."""
    sums: dict[int, Tensor] = {}
    last, n_tokens = max(layers), 0

    def adding(layer: int) -> Any:
        def hook(_module: Any, args: tuple, _kwargs: dict) -> None:
            keys_NF = args[0].reshape(-1, args[0].shape[-1]).float()
            product_FF = (keys_NF.T @ keys_NF).double()
            sums[layer] = product_FF if layer not in sums else sums[layer] + product_FF
            if layer == last:
                raise EndOfPass

        return hook

    for batch in _batches(rows, BATCH):  # hooks only around our own pass: drawing the next rows runs the model too
        ids_BT = torch.tensor(batch)
        with hooked(before={lm.mlp_out(layer): adding(layer) for layer in layers}), suppress(EndOfPass):
            lm.forward(ids_BT, torch.ones_like(ids_BT))
        n_tokens += ids_BT.numel()
    return {layer: total.cpu() / n_tokens for layer, total in sums.items()}


def _batches(rows: Iterable[list[int]], size: int) -> Iterator[list[list[int]]]:
    batch: list[list[int]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
