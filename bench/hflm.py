"""Runs lm-eval's own HFLM at its best: same model, same start token, the batch size that suits the task."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers.processors import TemplateProcessing

from afteredit.bench.machine import seconds
from afteredit.model.lm import LM

SMALL, LARGE = (1, 4, 8), (16, 32)  # batch sizes tried
TRIED = {"loglikelihood": (4, 16), "generate_until": (8, 32)}  # documents to try small and large sizes on


def hflm(lm: LM) -> HFLM:
    """Returns HFLM on our model, with a tokenizer that puts the model's start token in front."""
    tokenizer = copy.deepcopy(lm.tokenizer)
    (start,) = tokenizer.convert_ids_to_tokens(lm.tokens.start_ids)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{start} $A", special_tokens=[(start, lm.tokens.start_ids[0])]
    )
    return HFLM(pretrained=lm.model, tokenizer=tokenizer, add_bos_token=True, batch_size=1)


def best_answers(theirs: HFLM, requests: list[Instance]) -> tuple[int, float, list]:
    """Returns the best batch size, the seconds that all requests take at it, and their answers.

    The small sizes are tried on a few documents; the best of them and the large ones on more, which fill the largest.
    Where the largest is best for generation, twice as large a batch is tried on all requests too.
    """
    kind = requests[0].request_type
    few, more = (of_first_documents(requests, n) for n in TRIED[kind])

    def answered(size: int, asked: list[Instance]) -> tuple[float, list]:
        theirs.batch_size_per_gpu = size
        return seconds(lambda: getattr(theirs, kind)(asked, disable_tqdm=True))

    answered(1, few[:1])  # a first call costs more
    best = fastest(SMALL, lambda size: answered(size, few)[0])
    best = fastest((best, *LARGE), lambda size: answered(size, more)[0])
    taken_s, answers = answered(best, requests)
    if kind == "generate_until" and best == LARGE[-1] < len(requests):
        larger_s, larger = answered(2 * best, requests)
        if larger_s < taken_s:
            return 2 * best, larger_s, larger
    return best, taken_s, answers


def of_first_documents(requests: Sequence[Instance], n: int) -> list[Instance]:
    ids = sorted({request.doc_id for request in requests})[:n]
    return [request for request in requests if request.doc_id in ids]


def fastest(sizes: Sequence[int], taken_s: Callable[[int], float]) -> int:
    taken = {size: taken_s(size) for size in sizes}
    return min(taken, key=lambda size: taken[size])
