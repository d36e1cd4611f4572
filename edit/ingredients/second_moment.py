"""C = E[k kᵀ]: the uncentred second moment of keys (Meng et al., 2022, eq. 2), from text, once per model.

One forward pass serves all layers asked for and stops after the last one.  Few tokens do: 10 per key dimension here,
where the reference uses some 10,000 (FastMEMIT, arXiv 2506.04226, finds 10 per dimension enough; our own measurement
is in docs/results/second-moment).
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from afteredit.model.decoding import continue_rows, sampler
from afteredit.model.hooks import hooked
from afteredit.model.lm import LM
from afteredit.store.errors import BadInput
from afteredit.store.json_rows import EMBEDDED, hub_rows
from afteredit.store.user_cache import content_hash, made_once

log = logging.getLogger(__name__)

LENGTH = 128  # tokens of one sequence: keys hardly change with longer contexts, memory does
BATCH = 32  # sequences at once


def second_moments(lm: LM, layers: Sequence[int], text: str, tokens_per_dim: int) -> tuple[dict[int, Tensor], str]:
    """C (F, F) float32 per layer, and the hash that names the cached file.

    `text` is "sampled" (the model's own writing), "hub:<data set>[:<config>]" (column `text`) or a text file's path.
    Raises BadInput where the text cannot be had or holds fewer tokens than needed.
    """
    n_tokens = tokens_per_dim * max(lm.widths(layer)[1] for layer in layers)
    decides = {"model": lm.fingerprint, "layers": list(layers), "text": _identity(text), "tokens": n_tokens}
    digest = content_hash(decides)

    def make(path: Path) -> None:
        moments = estimate(lm, layers, sequences(lm, text, n_tokens))
        save_file({str(layer): moment.float() for layer, moment in moments.items()}, path)

    stored = load_file(made_once(f"second_moment/{digest}.safetensors", make))
    return {layer: stored[str(layer)] for layer in layers}, digest


class _Stop(Exception):
    """Ends a forward pass after the last layer needed."""


@torch.no_grad()
def estimate(lm: LM, layers: Sequence[int], rows: Iterator[list[int]]) -> dict[int, Tensor]:
    """Mean of k kᵀ over all tokens of `rows` (all of one length), accumulated in float64, per layer."""
    sums: dict[int, Tensor] = {}
    last, n_tokens = max(layers), 0

    def catch(layer: int):
        def hook(_module, args, _kwargs):
            keys_NF = args[0].reshape(-1, args[0].shape[-1]).float()
            product_FF = (keys_NF.T @ keys_NF).double()
            sums[layer] = product_FF if layer not in sums else sums[layer] + product_FF
            if layer == last:
                raise _Stop

        return hook

    for batch in _batches(rows, BATCH):  # hooks only around our own pass: drawing the next rows runs the model too
        ids_BT = torch.tensor(batch)
        with hooked(before={lm.mlp_out(layer): catch(layer) for layer in layers}), suppress(_Stop):
            lm.forward(ids_BT, torch.ones_like(ids_BT))
        n_tokens += ids_BT.numel()
    return {layer: total.cpu() / n_tokens for layer, total in sums.items()}


def sequences(lm: LM, text: str, n_tokens: int) -> Iterator[list[int]]:
    """Rows of LENGTH ids, each with the start token in front, `n_tokens` or a little more in all."""
    n_rows = -(-n_tokens // LENGTH)
    if text == "sampled":
        yield from _sampled(lm, n_rows)
        return
    ids: list[int] = []
    body = LENGTH - len(lm.tokens.start_ids)
    for paragraph in _hub_texts(text) if text.startswith("hub:") else _file_texts(text):
        ids += lm.tokenizer(paragraph, add_special_tokens=False).input_ids
        while len(ids) >= body:
            yield [*lm.tokens.start_ids, *ids[:body]]
            ids, n_rows = ids[body:], n_rows - 1
            if n_rows == 0:
                return
    raise BadInput(f"second_moment_text={text} holds {n_rows} x {LENGTH} tokens fewer than the {n_tokens} needed; give "
                   "a longer text or a smaller method.tokens_per_key_dim")  # fmt: skip


def _sampled(lm: LM, n_rows: int) -> list[list[int]]:
    """Texts that the model writes, drawn from its own distribution with a fixed seed: what it was trained to say.

    Cached apart from the moments, which other layers need too; the default model's are shipped.
    """

    def make(path: Path) -> None:
        generator = torch.Generator().manual_seed(0)
        first = lm.tokens.start_ids or [lm.tokenizer.eos_token_id]
        rows: list[list[int]] = []
        while len(rows) < n_rows:
            n = min(n_rows - len(rows), 4 * BATCH)
            log.info("sampling text for the second moment: %d sequences of %d tokens to go", n_rows - len(rows), LENGTH)
            written = continue_rows(lm, [first] * n, LENGTH - len(first), sampler(generator))
            rows += [[*first, *row] for row in written]
        save_file({"ids": torch.tensor(rows)}, path)

    name = f"sampled_text/{content_hash({'model': lm.fingerprint, 'rows': n_rows, 'length': LENGTH})}.safetensors"
    shipped = EMBEDDED / name  # what SmolLM2 wrote for the default number of tokens: a minute that nobody waits for
    return load_file(shipped if shipped.exists() else made_once(name, make))["ids"].tolist()


def _identity(text: str) -> str:
    if text == "sampled" or text.startswith("hub:"):
        return text
    if not os.path.isfile(text):
        raise BadInput(f"second_moment_text={text}: no such file; allowed: sampled, hub:<data set>, or a text file")
    return hashlib.sha256(Path(text).read_bytes()).hexdigest()


def _file_texts(path: str) -> Iterator[str]:
    with open(path, encoding="utf-8") as lines:
        try:
            yield from lines
        except UnicodeDecodeError as problem:
            raise BadInput(f"second_moment_text={path}: cannot be read as UTF-8 text: {problem}") from None


def _hub_texts(text: str) -> Iterator[str]:
    _, name, *config = text.split(":")
    for row in hub_rows(name, *config, split="train", streaming=True):
        yield row["text"]


def _batches(rows: Iterator[list[int]], size: int) -> Iterator[list[list[int]]]:
    batch: list[list[int]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
