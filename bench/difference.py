"""Compares the answers of two programs: how far apart they are, and whether rounding explains where they differ.

Two sums in another order differ in the last digits.  This changes which answer is the likeliest only where the two
likeliest are nearly equal.  So an answer that differs is explained where a plain pass of the model (Hugging Face's own
forward) finds the top two within TOLERANCE of each other where the answers part; anything else is a defect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lm_eval.api.instance import Instance
from torch import Tensor
from transformers import DynamicCache

from afteredit.model.lm import LM
from afteredit.model.tensors import wide

TOLERANCE = 1e-4  # nats per token


@dataclass(frozen=True)
class Difference:
    worst_nats_per_token: float | None  # of log-likelihoods; None: only texts were compared
    margins: list[float]  # of the answers that differ, in nats per token

    @property
    def n_unexplained(self) -> int:
        return sum(not margin <= TOLERANCE for margin in self.margins)  # NaN explains nothing


def of_likelihoods(
    requests: Sequence[Instance],
    ours: Sequence[tuple[float, bool]],
    theirs: Sequence[tuple[float, bool]],
    n_tokens: Sequence[int],
    margin: Callable[[int], float],
) -> Difference:
    """Compares log-likelihoods, and two kinds of answers: whether a request's continuation is what the model would say
    (`margin` gives how close that decision is), and which of a document's requests is the likeliest."""
    both = list(zip(ours, theirs, n_tokens, strict=True))
    worst = max(abs(a[0] - b[0]) / n for a, b, n in both)
    margins = [margin(i) for i, (a, b, _) in enumerate(both) if a[1] != b[1]]
    of_document: dict[int, list[int]] = {}
    for i, request in enumerate(requests):
        of_document.setdefault(request.doc_id, []).append(i)
    for indices in of_document.values():
        a, b = (max(indices, key=lambda i, answers=answers: answers[i][0]) for answers in (ours, theirs))  # type: ignore[misc]
        if a != b:
            margins.append((ours[a][0] - ours[b][0]) / max(n_tokens[a], n_tokens[b]))
    return Difference(worst, margins)


def of_texts(ours: Sequence[str], theirs: Sequence[str], margin: Callable[[int], float]) -> Difference:
    margins = [margin(i) for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b]
    return Difference(None, margins)


@torch.no_grad()
def margin_of_greedy(lm: LM, context: Sequence[int], continuation: Sequence[int]) -> float:
    """Returns the least distance (nats) of log p between a token and the best other, over a continuation's tokens."""
    logits_TV = lm.model(input_ids=torch.tensor([[*context, *continuation[:-1]]]), use_cache=False).logits[0]
    log_p_NV = wide(logits_TV[-len(continuation) :]).log_softmax(-1)
    return min(margin_of(log_p_V, token) for log_p_V, token in zip(log_p_NV, continuation, strict=True))


def margin_of(log_p_V: Tensor, token: int) -> float:
    others_V = log_p_V.clone()
    others_V[token] = -torch.inf
    return abs(float(log_p_V[token] - others_V.max()))


@torch.no_grad()
def margin_of_texts(lm: LM, context: Sequence[int], texts: tuple[str, str], n_tokens: int) -> float:
    """Returns the least distance (nats) between the top two of a plain greedy continuation, up to where it leaves one
    of the texts.  That token alone is not enough: a text may have left earlier, by another cut of the same letters."""
    cache, new, margin = DynamicCache(), list(context), float("inf")
    ids: list[int] = []
    while len(ids) < n_tokens:
        output = lm.model(input_ids=torch.tensor([new]), past_key_values=cache, use_cache=True)
        top = wide(output.logits[0, -1]).log_softmax(-1).topk(2)
        margin = min(margin, float(top.values[0] - top.values[1]))
        new = [int(top.indices[0])]
        ids += new
        text = lm.tokenizer.decode(ids, skip_special_tokens=True).rstrip("\ufffd")  # half a letter
        if new == [lm.tokenizer.eos_token_id] or not all(other.startswith(text) for other in texts):
            break
    return margin


def totals(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Returns what several tasks' rows add up to."""
    worst = [row["worst_nats_per_token"] for row in rows if row["worst_nats_per_token"] is not None]
    return {
        "answers_that_differ": sum(row["answers_that_differ"] for row in rows),
        "unexplained_differences": sum(row["unexplained_differences"] for row in rows),
        **({"worst_nats_per_token": max(worst)} if worst else {}),
    }


def complaints(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns a line for every task whose answers differ more than rounding explains."""
    lines = []
    for row in rows:
        worst = row["worst_nats_per_token"]
        if worst is not None and not worst <= TOLERANCE:  # NaN is not
            lines.append(f"{row['task']}: log-likelihoods differ by {worst:.1e} nats per token, which is more than "
                         f"{TOLERANCE}")  # fmt: skip
        if row["unexplained_differences"]:
            lines.append(f"{row['task']}: {row['unexplained_differences']} answers differ where the two likeliest are "
                        f"further apart than {TOLERANCE} nats")  # fmt: skip
        if row["kept_differences"]:
            lines.append(f"{row['task']}: kept blocks changed {row['kept_differences']} answers")
    return lines
