"""Context prefixes: short texts that the unedited model wrote, after which a fact must hold too.

As MEMIT's reference and EasyEdit's ROME do, each text starts from a common opening word and is drawn from the likeliest
next tokens, so that it reads like the beginning of a sentence; the first ROME's starts from the start token alone.
Departures: n tokens come after the opening, where the references count it, and a start token, among the n
(`count_opening` does so too); the texts are put on one line and lose a full stop at their end, before `prefix_text`
adds one, where the references' may end in two.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from afteredit.edit.request import EditRequest
from afteredit.model.decoding import Choose, continue_rows, sampler
from afteredit.model.lm import LM

OPENINGS = ("The", "Therefore", "Because", "I", "You")
TOP_K = 5


def sample_contexts(lm: LM, counts: Mapping[int, int], seed: int, *, count_opening: bool = False) -> tuple[str, ...]:
    """Returns "" (the bare prompt), then `counts[n]` prefixes of n tokens for each n; they depend on `seed` alone.

    The n tokens follow the opening word, or with `count_opening` begin with all that the model reads of it.
    """
    generator = torch.Generator().manual_seed(seed)
    contexts = [""]
    for n_tokens, count in counts.items():
        openings = [OPENINGS[i % len(OPENINGS)] for i in range(count)]
        rows = [list(lm.tokens.encode(opening)) for opening in openings]
        if rows:
            lengths = [n_tokens + (0 if count_opening else len(row)) for row in rows]
            whole = _continued(lm, rows, lengths, sampler(generator, TOP_K))
            # decoded as a whole: a piece that is decoded alone may lose its space
            contexts += [_one_line(lm.tokenizer.decode(ids, skip_special_tokens=True)) for ids in whole]
    return tuple(contexts)


def _continued(lm: LM, rows: list[list[int]], lengths: list[int], choose: Choose) -> list[list[int]]:
    """Returns the rows, each continued to its length; one that has it is left as it is."""
    short = [i for i, row in enumerate(rows) if len(row) < lengths[i]]
    if not short:
        return rows
    missing = [lengths[i] - len(rows[i]) for i in short]
    new = continue_rows(lm, [rows[i] for i in short], max(missing), choose, lambda at, ids: len(ids) >= missing[at])
    added = dict(zip(short, new, strict=True))
    return [row + added.get(i, []) for i, row in enumerate(rows)]


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
