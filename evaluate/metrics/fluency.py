"""Fluency: whether the model still writes, or repeats itself (Meng et al., NeurIPS 2022, "GE": n-gram entropy).

The entropy of a text is Σ_n w_n · (−Σ_g f(g) log₂ f(g)) in bits: f is the frequency of each n-gram of words g, and
w = 1/3 for n = 2 and 2/3 for n = 3.  (The reference code gives the weights as 2/3 and 4/3 and takes the mean of both
terms.)  Text that repeats one word has 0; tables in papers show a hundred times this number.

Departures from the reference code (kmeng01/rome, experiments/py/eval_utils_counterfact.py), which continues each prompt
to 100 tokens and draws each of them from the 5 likeliest:
- N_TOKENS tokens are written after the prompt, fewer where the model can read no more, and they alone are scored, so
  that the prompt's own words do not hold the number up; shorter texts have fewer n-grams: compare with the unedited
  model's value, not with a paper's;
- the draws have a seed of their own, per prompt, so that two checkpoints differ by what the edits changed;
- words and punctuation marks are found by a regular expression, as nltk's tokenizer needs a download;
- a prompt that stands several times in a record, as CounterFact's do, is continued once.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from afteredit.edit.request import EditRequest
from afteredit.evaluate.inference.batches import Ids
from afteredit.model.decoding import Choose, continue_rows, sampler
from afteredit.model.lm import LM

N_REQUESTS = 10  # a checkpoint writes at most 10 x 3 texts, in one batch: its cost does not grow with the edits
N_PROMPTS = 3  # of each request
N_TOKENS = 50
TOP_K = 5
WEIGHT_BY_N = {2: 1 / 3, 3: 2 / 3}


def fluency(lm: LM, requests: Sequence[EditRequest]) -> list[dict[str, Any]]:
    """Returns one row per text that the model writes for the first requests with generation prompts.

    A row holds `request`, `probe` (which of its distinct prompts), `name`, `score` (bits) and the `text`.
    """
    prompts = []
    for request in islice((request for request in requests if request.generation_prompts), N_REQUESTS):
        distinct = list(dict.fromkeys(request.generation_prompts))[:N_PROMPTS]
        prompts += [(request.id, index, prompt) for index, prompt in enumerate(distinct)]
    texts = write_texts(lm, [prompt for _, _, prompt in prompts]) if prompts else []
    return [
        {"request": request, "probe": index, "name": "fluency", "score": n_gram_entropy(text), "text": text}
        for (request, index, _), text in zip(prompts, texts, strict=True)
    ]


def write_texts(lm: LM, prompts: Sequence[str]) -> list[str]:
    """Returns what the model writes after each prompt; the draws depend on the prompt alone, not on the others."""
    rows = [lm.tokens.question_ids(prompt) for prompt in prompts]
    new_ids: dict[int, list[int]] = {}
    for n_tokens, places in _written_together(lm, rows):
        draws = [sampler(torch.Generator().manual_seed(zlib.crc32(prompts[i].encode())), TOP_K) for i in places]

        def choose(logits_BV: Tensor, draws: Sequence[Choose] = draws) -> Tensor:
            return torch.cat([draw(logits_1V) for draw, logits_1V in zip(draws, logits_BV.split(1), strict=True)])

        written = continue_rows(lm, [rows[i] for i in places], n_tokens, choose)
        new_ids.update(zip(places, written, strict=True))
    n_short = sum(len(ids) < N_TOKENS for ids in new_ids.values())
    if n_short:
        lm.capabilities.log_once(f"fluency: {n_short} of {len(rows)} texts end before their {N_TOKENS} tokens: the "
                                 f"model reads {lm.max_tokens} tokens in all")  # fmt: skip
    return [lm.tokenizer.decode(new_ids[i], skip_special_tokens=True) for i in range(len(rows))]


def _written_together(lm: LM, rows: Sequence[Ids]) -> Iterator[tuple[int, list[int]]]:
    """Yields (number of tokens to write, places of the rows) for rows of which none ends before the others."""
    may_pad = lm.capabilities.may_pad(max(map(len, rows)) + N_TOKENS)
    groups: dict[tuple[int, int], list[int]] = {}
    for place, row in enumerate(rows):
        room = N_TOKENS if lm.max_tokens is None else min(N_TOKENS, lm.max_tokens + 1 - len(row))
        groups.setdefault((room, 0 if may_pad else len(row)), []).append(place)
    for (n_tokens, _), places in groups.items():
        yield n_tokens, places


def n_gram_entropy(text: str) -> float:
    """Returns bits.  A text with fewer words than n has no n-grams, and no entropy of them."""
    words = re.findall(r"\w+|[^\w\s]", text)
    total = 0.0
    for n, weight in WEIGHT_BY_N.items():
        counts = Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
        frequencies = [count / counts.total() for count in counts.values()]
        total += weight * sum(f * math.log2(1 / f) for f in frequencies)
    return total
