"""C = E[k kᵀ]: the uncentred second moment of keys (Meng et al., 2022, eq. 2), estimated on a text, once per model.

One forward pass serves all layers and ends after the last of them.  Few tokens do: 10 per key dimension here, where the
reference uses some 10,000 (FastMEMIT, arXiv 2506.04226, finds 10 per dimension enough; our own measurement is in
docs/results/second-moment).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from afteredit.edit.ingredients.sampled_text import identity, sequences
from afteredit.model.hooks import EndOfPass, hooked
from afteredit.model.lm import LM
from afteredit.store.progress.kept_progress import KeptProgress
from afteredit.store.progress.work import working
from afteredit.store.user_cache import cache_key, made_once

FORMAT = 1  # raised when something else is computed from the same text
BATCH = 32  # rows of one forward pass


def second_moments(lm: LM, layers: Sequence[int], text: str, tokens_per_dim: int) -> tuple[dict[int, Tensor], str]:
    """Returns C (F, F) float32 per layer, and the hash that names the cached file.

    `text` is as in `sequences`.  Raises BadInput where it cannot be had or holds fewer tokens than needed.
    """
    n_tokens = tokens_per_dim * max(lm.widths(layer)[1] for layer in layers)
    decides = {"model": lm.fingerprint, "layers": list(layers), "text": identity(text), "tokens": n_tokens}
    digest = cache_key(FORMAT, decides)

    name = f"second_moment/{digest}.safetensors"
    progress = KeptProgress(name)

    def make(path: Path) -> None:
        moments = estimate(lm, layers, sequences(lm, text, n_tokens), progress)
        save_file({str(layer): moment.float() for layer, moment in moments.items()}, path)

    stored = load_file(made_once(name, make, "computing second moments"))
    progress.clear()
    return {layer: stored[str(layer)] for layer in layers}, digest


@torch.no_grad()
def estimate(
    lm: LM, layers: Sequence[int], rows: Iterable[list[int]], progress: KeptProgress | None = None
) -> dict[int, Tensor]:
    """Returns per layer the mean of k kᵀ over all tokens of `rows` (all of one length), summed in float64.

    With `progress` it goes on from the sums that a stopped start kept there, and keeps its own.
    """
    rows = list(rows)  # before any hook is set: drawing them may run the model
    sums, n_rows, n_tokens = _kept_sums(lm, progress)
    last = max(layers)

    def adding(layer: int) -> Any:
        def hook(_module: Any, args: tuple, _kwargs: dict) -> None:
            keys_NF = args[0].reshape(-1, args[0].shape[-1]).float()
            product_FF = (keys_NF.T @ keys_NF).double()
            sums[layer] = product_FF if layer not in sums else sums[layer] + product_FF
            if layer == last:
                raise EndOfPass

        return hook

    with working("rows", len(rows), n_rows) as work:
        for start in range(n_rows, len(rows), BATCH):
            ids_BT = torch.tensor(rows[start : start + BATCH])
            with hooked(before={lm.mlp_out(layer): adding(layer) for layer in layers}), suppress(EndOfPass):
                lm.forward(ids_BT, torch.ones_like(ids_BT))
            work.done, n_tokens = start + len(ids_BT), n_tokens + ids_BT.numel()
            if progress is not None and progress.is_due():
                counts = {"rows": torch.tensor(work.done), "tokens": torch.tensor(n_tokens)}
                tensors = counts | {str(layer): total.cpu() for layer, total in sums.items()}
                progress.keep(partial(save_file, tensors))
    return {layer: total.cpu() / n_tokens for layer, total in sums.items()}


def _kept_sums(lm: LM, progress: KeptProgress | None) -> tuple[dict[int, Tensor], int, int]:
    """Returns the sums by layer that a stopped start kept, and the numbers of rows and tokens in them."""
    kept = progress.found() if progress is not None else None
    if kept is None:
        return {}, 0, 0
    tensors = load_file(kept, device=str(lm.device))
    n_rows, n_tokens = int(tensors.pop("rows")), int(tensors.pop("tokens"))
    return {int(layer): total for layer, total in tensors.items()}, n_rows, n_tokens
