"""Reads the held-out text on which perplexity is measured, and cuts it into windows."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from afteredit.evaluate.settings import MeasureSettings
from afteredit.store.errors import BadInput
from afteredit.store.rows.row_files import EMBEDDED
from afteredit.store.rows.text_files import read_text

if TYPE_CHECKING:
    from afteredit.evaluate.inference.batches import Ids
    from afteredit.model.lm import LM

log = logging.getLogger(__name__)

WINDOW_TOKENS = 256  # tokens of one window, where the model can read so many


def held_out(lm: LM, settings: MeasureSettings) -> list[tuple[Ids, Ids]]:
    """Returns the (context, continuation) windows to score.  Raises BadInput where there is no token to predict."""
    windows = held_out_windows(lm, held_out_text(settings), settings.held_out_tokens)
    if not windows:
        raise BadInput(f"held_out={settings.held_out} held_out_tokens={settings.held_out_tokens}: leaves no token to "
                       "predict; give a longer text, or held_out_tokens of at least 2")  # fmt: skip
    n_read = sum(len(context) + len(rest) - len(lm.tokens.start_ids) for context, rest in windows)
    if settings.held_out is not None and n_read < settings.held_out_tokens:
        log.warning("held_out=%s holds %d tokens, fewer than held_out_tokens=%d", settings.held_out, n_read,
                    settings.held_out_tokens)  # fmt: skip
    return windows


def held_out_text(settings: MeasureSettings) -> str:
    """Returns the whole text.  Raises BadInput where it cannot be read; the embedded text never takes its place."""
    if settings.held_out is None:
        return read_text(EMBEDDED / "heldout.txt", "the embedded text")
    return read_text(Path(settings.held_out), f"held_out={settings.held_out}",
                     "a text file, or null for the embedded text")  # fmt: skip


def held_out_windows(lm: LM, text: str, n_tokens: int) -> list[tuple[Ids, Ids]]:
    """Returns windows over the first `n_tokens` of the text, in which each token is predicted once."""
    ids = lm.tokens.text_ids(text)[:n_tokens]
    start = tuple(lm.tokens.start_ids)
    size = WINDOW_TOKENS
    if lm.max_tokens and lm.max_tokens + 1 < len(start) + size:  # a window's last token is predicted, not read
        size = lm.max_tokens + 1 - len(start)
        log.warning("held_out: read in windows of %d tokens, not %d: the model reads no more", size, WINDOW_TOKENS)
    windows = []
    for first in range(0, len(ids), size):
        window = (*start, *ids[first : first + size])
        n_given = max(len(start), 1)  # the start tokens are no part of the text; without them its first token is given
        if len(window) > n_given:
            windows.append((window[:n_given], window[n_given:]))
    return windows
