"""Token rows that second moments are estimated on: sampled from the model itself, of a data set, or of a file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from afteredit.model.decoding import continue_rows, drawn_by
from afteredit.model.lm import LM
from afteredit.store.errors import BadInput
from afteredit.store.progress.kept_progress import KeptProgress
from afteredit.store.progress.work import working
from afteredit.store.rows.row_files import EMBEDDED, hub_data
from afteredit.store.rows.text_files import read_lines
from afteredit.store.user_cache import cache_key, made_once

FORMAT = 1  # raised when other text is sampled from the same model
LENGTH = 128  # tokens of one row, where the model reads so many: keys hardly change with longer contexts, memory does
GROUP = 128  # rows whose random numbers are drawn together
PIECE = {"cpu": 32}  # rows sampled at once, and kept when they are, by kind of device; elsewhere a whole group


def sequences(lm: LM, text: str, n_tokens: int) -> Iterator[list[int]]:
    """Yields rows of `row_length` token ids, each with the start token in front, `n_tokens` or a little more in all.

    `text` is "sampled", "hub:<data set>[:<config>]" (column `text`) or a text file's path.  Raises BadInput where it
    cannot be had or holds fewer tokens.
    """
    length = row_length(lm)
    n_rows = -(-n_tokens // length)
    if text == "sampled":
        yield from _sampled(lm, n_rows, length)
        return
    ids: list[int] = []
    body = length - len(lm.tokens.start_ids)
    for paragraph in _hub_texts(text) if text.startswith("hub:") else _file_texts(text):
        ids += lm.tokens.text_ids(paragraph)
        while len(ids) >= body:
            yield [*lm.tokens.start_ids, *ids[:body]]
            ids, n_rows = ids[body:], n_rows - 1
            if n_rows == 0:
                return
    raise BadInput(f"second_moment_text={text} holds {n_rows} x {length} tokens fewer than the {n_tokens} needed; give "
                   "a longer text or a smaller method.tokens_per_key_dim")  # fmt: skip


def row_length(lm: LM) -> int:
    """Returns the number of tokens of one row."""
    return min(LENGTH, lm.max_tokens or LENGTH)


def is_shipped(lm: LM, n_rows: int, length: int) -> bool:
    """Returns whether these rows of the model's own text are in this package: what SmolLM2 wrote for the default number
    of tokens, which would take a minute.  The file models.json beside them says by fingerprint whose they are."""
    return (EMBEDDED / f"sampled_text/{cache_key(FORMAT, _decides(lm, n_rows, length))}.safetensors").exists()


def _decides(lm: LM, n_rows: int, length: int) -> dict[str, Any]:
    return {"model": lm.fingerprint, "rows": n_rows, "length": length}


def identity(text: str) -> str:
    """Returns what names the text in the cache: its setting, or the SHA-256 of a file's text.  Raises BadInput for no
    file."""
    if text == "sampled" or text.startswith("hub:"):
        return text
    digest = hashlib.sha256()
    for line in _file_texts(text):
        digest.update(line.encode())
    return digest.hexdigest()


def _sampled(lm: LM, n_rows: int, length: int) -> list[list[int]]:
    """Returns texts that the model writes, drawn from its own distribution with a fixed seed.

    They are cached apart from the second moments, since other layers need them too; the default model's are shipped.
    A stopped start goes on after the last whole piece.
    """
    name = f"sampled_text/{cache_key(FORMAT, _decides(lm, n_rows, length))}.safetensors"
    if is_shipped(lm, n_rows, length):
        return load_file(EMBEDDED / name)["ids"].tolist()
    progress = KeptProgress(name)

    def make(path: Path) -> None:
        save_file({"ids": torch.tensor(_write_rows(lm, n_rows, length, progress))}, path)

    made = made_once(name, make, "sampling text for second moments")
    progress.clear()
    return load_file(made)["ids"].tolist()


def _write_rows(lm: LM, n_rows: int, length: int, progress: KeptProgress) -> list[list[int]]:
    """Returns `n_rows` rows that the model writes, and keeps them piece by piece."""
    opening = lm.tokens.opening_ids()
    n_new, generator = length - len(opening), torch.Generator().manual_seed(0)
    kept = progress.found()
    rows: list[list[int]] = load_file(kept)["ids"].tolist() if kept else []
    size = PIECE.get(lm.device.type, GROUP)
    with working("texts", n_rows, len(rows)) as work:
        for start in range(0, n_rows, GROUP):
            # drawn for a whole group, so that the size of a piece decides no number
            numbers_TB = torch.rand(n_new, min(GROUP, n_rows - start), generator=generator)
            while (done := len(rows) - start) < numbers_TB.shape[1]:
                piece_TB = numbers_TB[:, done : done + size]
                numbers = iter(piece_TB)
                written = continue_rows(lm, [opening] * piece_TB.shape[1], n_new, drawn_by(partial(_next, numbers)))
                rows += [[*opening, *new] for new in written]
                work.done = len(rows)
                progress.keep(partial(save_file, {"ids": torch.tensor(rows)}))
    return rows


def _next(numbers: Iterator[Tensor], _n_rows: int) -> Tensor:
    return next(numbers)


def _file_texts(path: str) -> Iterator[str]:
    return read_lines(Path(path), f"second_moment_text={path}", "sampled, hub:<data set>, or a text file")


def _hub_texts(text: str) -> Iterator[str]:
    named, _, revision = text.partition("@")
    _, name, *config = named.split(":")
    options = {"split": "train", "streaming": True, "revision": revision or None}
    for row in hub_data(name, *config, instead="method.second_moment_text=sampled, or a text file", **options):
        yield row["text"]
