"""A tokenizer that puts two tokens in front of every text, as GLM-4's does: both are read, neither is predicted."""

from __future__ import annotations

import math

import pytest
import torch
from lm_eval.api.instance import Instance
from tokenizers.processors import TemplateProcessing

from afteredit.evaluate.abilities.lm_eval_model import LmEvalModel
from afteredit.evaluate.inference.held_out import held_out_windows
from afteredit.evaluate.metrics.drift import drift
from afteredit.model.lm import LM
from afteredit.tests.tiny.models import tiny_model
from afteredit.tests.tiny.tokenizers import byte_level

TEXT = "The old town has a market, and people come to buy fish and bread."
OPENING = ("<s>", "<|endoftext|>")


@pytest.fixture
def lm() -> LM:
    tokenizer = byte_level()
    special = [(token, tokenizer.convert_tokens_to_ids(token)) for token in OPENING]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("<s> <|endoftext|> $A", special_tokens=special)
    return LM(tiny_model("llama", len(tokenizer)), tokenizer, start_token="auto")


def plain_log_p(lm: LM, n_before: int, ids: list[int]) -> float:
    """Returns the sum over all tokens but the first `n_before`, by transformers alone."""
    log_p = lm.model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(float(log_p[i - 1, ids[i]]) for i in range(n_before, len(ids)))


def test_perplexity_counts_the_texts_own_tokens(lm):
    ids = lm.tokenizer(TEXT).input_ids
    assert lm.tokenizer.decode(ids[:2]) == "".join(OPENING) and lm.tokens.start_ids == ids[:2]
    windows = held_out_windows(lm, TEXT, 1000)
    expected = math.exp(-plain_log_p(lm, 2, ids) / (len(ids) - 2))
    assert drift(lm, windows)["drift/perplexity"] == pytest.approx(expected, rel=1e-5)


def test_lm_evals_texts_without_a_context_have_both_in_front(lm):
    ids = lm.tokenizer(TEXT).input_ids
    expected = plain_log_p(lm, 2, ids)
    (rolled,) = LmEvalModel(lm).loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (TEXT,), 0)])
    ((alone, _),) = LmEvalModel(lm).loglikelihood([Instance("loglikelihood", {}, ("", TEXT), 0)])
    assert rolled == pytest.approx(expected, rel=1e-5) and alone == pytest.approx(expected, rel=1e-5)
