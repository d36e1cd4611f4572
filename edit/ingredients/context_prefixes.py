"""Context prefixes: short texts that the unedited model wrote, in front of which a fact must hold too.

As MEMIT's reference does, each text starts from a common opening word and is drawn from the likeliest next tokens, so
that it reads like the beginning of a sentence; ROME's starts from the start token alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from afteredit.model.decoding import continue_rows, sampler
from afteredit.model.lm import LM

OPENINGS = ("The", "Therefore", "Because", "I", "You")
TOP_K = 5


def sample_contexts(lm: LM, counts: Mapping[int, int], seed: int) -> tuple[str, ...]:
    """ "" (the bare prompt), then `counts[n]` prefixes of n tokens for each n: the same seed gives the same texts."""
    generator = torch.Generator().manual_seed(seed)
    contexts = [""]
    for n_tokens, count in counts.items():
        openings = [OPENINGS[i % len(OPENINGS)] for i in range(count)]
        rows = [list(lm.tokens.encode(opening)) for opening in openings]
        if rows:
            continued = continue_rows(lm, rows, n_tokens, sampler(generator, TOP_K))
            whole = [row + new for row, new in zip(rows, continued, strict=True)]  # a piece alone may lose its blank
            contexts += [_one_line(lm.tokenizer.decode(ids, skip_special_tokens=True)) for ids in whole]
    return tuple(contexts)


def _one_line(text: str) -> str:
    """No braces, which stand for the subject elsewhere, no line breaks, no full stop: ". " follows."""
    return " ".join(text.replace("{", " ").replace("}", " ").split()).rstrip(" .")
