"""Context prefixes: short texts that the unedited model wrote, after which a fact must hold too.

As MEMIT's reference does, each text starts from a common opening word and is drawn from the likeliest next tokens, so
that it reads like the beginning of a sentence; ROME's starts from the start token alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from afteredit.edit.request import EditRequest
from afteredit.model.decoding import continue_rows, sampler
from afteredit.model.lm import LM

OPENINGS = ("The", "Therefore", "Because", "I", "You")
TOP_K = 5


def sample_contexts(lm: LM, counts: Mapping[int, int], seed: int) -> tuple[str, ...]:
    """Returns "" (the bare prompt), then `counts[n]` prefixes of n tokens for each n; they depend on `seed` alone."""
    generator = torch.Generator().manual_seed(seed)
    contexts = [""]
    for n_tokens, count in counts.items():
        openings = [OPENINGS[i % len(OPENINGS)] for i in range(count)]
        rows = [list(lm.tokens.encode(opening)) for opening in openings]
        if rows:
            continued = continue_rows(lm, rows, n_tokens, sampler(generator, TOP_K))
            # decoded as a whole: a piece that is decoded alone may lose its space
            whole = [row + new for row, new in zip(rows, continued, strict=True)]
            contexts += [_one_line(lm.tokenizer.decode(ids, skip_special_tokens=True)) for ids in whole]
    return tuple(contexts)


def prefix_text(context: str) -> str:
    """Returns the text that a context prefix puts before a question: the prefix as a sentence, or nothing."""
    return f"{context}. " if context else ""


def locate_subject(lm: LM, request: EditRequest, context: str) -> tuple[list[int], int]:
    """Returns the token ids of the request's question under a context prefix, and its subject's last token's index."""
    prefix = prefix_text(context)
    return lm.tokens.locate(prefix + request.question, len(prefix) + request.subject_start, len(request.subject))


def _one_line(text: str) -> str:
    """Returns the text without line breaks, without braces, which stand for the subject elsewhere, and without a full
    stop, which `prefix_text` adds."""
    return " ".join(text.replace("{", " ").replace("}", " ").split()).rstrip(" .")
