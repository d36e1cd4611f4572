"""Tests that every row runs whole and alone if a cache of keys and values cannot be continued; one log line says so."""

import logging

import pytest
import torch
from torch.testing import assert_close

from afteredit.edit.ingredients.subject_keys import subject_keys
from afteredit.evaluate.inference.generation import score_and_generate
from afteredit.evaluate.inference.kept_blocks import KeptBlocks
from afteredit.evaluate.inference.likelihood import score
from afteredit.model.lm import LM

CONTEXTS = [tuple(range(40, 70)), (*range(40, 70), 7, 9), (3, 5, 8), (12,)]
CONTINUATIONS = [(4, 6, 11), (9,), (21, 4)]


@pytest.fixture(params=[1, 3], ids=["below the edited block", "above it"])
def lm(request, make_lm, caplog):
    """A block adds the mean of all positions so far, which no keys and values hold."""
    model = make_lm("llama", dtype=torch.float64).model
    model.model.layers[request.param].register_forward_hook(
        lambda _m, _a, out: out + out.cumsum(1) / torch.arange(1, out.shape[1] + 1)[:, None]
    )
    with caplog.at_level(logging.INFO, logger="afteredit.model"):
        yield LM(model, make_lm("llama").tokenizer)


def plain_log_p(lm, context, continuation) -> list[float]:
    logits_TV = lm.model(torch.tensor([[*context, *continuation]])).logits[0].log_softmax(-1)
    return [float(logits_TV[len(context) + i - 1, token]) for i, token in enumerate(continuation)]


def plain_greedy(lm, context, n_tokens) -> list[int]:
    ids = list(context)
    for _ in range(n_tokens):
        ids.append(int(lm.model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(context) :]


@torch.no_grad()
def test_scores_and_answers_are_those_of_whole_rows(lm):
    scores, answers = score_and_generate(lm, dict.fromkeys(CONTEXTS, CONTINUATIONS), 6)
    for context in CONTEXTS:
        assert answers[context] == plain_greedy(lm, context, 6)
        for continuation in CONTINUATIONS:
            expected = plain_log_p(lm, context, continuation)
            assert list(scores[context, continuation].log_p) == pytest.approx(expected, abs=1e-6)


def test_the_log_says_so_once(lm, caplog):
    messages = [record.getMessage() for record in caplog.get_records("setup")]
    assert messages == ["LlamaForCausalLM: it cannot be continued from cached keys and values: "
                    "every row is run whole and alone"]  # fmt: skip


@torch.no_grad()
def test_nothing_is_kept_of_its_blocks(lm):
    lm.weights.keep_base([lm.mlp_out_name(2)])
    base = KeptBlocks(lm, 1.0)
    for _ in range(2):
        (scored,) = score(lm, [(CONTEXTS[1], CONTINUATIONS[0])], base)
        assert list(scored.log_p) == pytest.approx(plain_log_p(lm, CONTEXTS[1], CONTINUATIONS[0]), abs=1e-6)
    assert not base.n_bytes


def test_a_facts_key_does_not_depend_on_its_batch(lm, fact, second_fact):
    alone = subject_keys(lm, [fact], ("", "It is known"), 2)
    assert_close(subject_keys(lm, [fact, second_fact], ("", "It is known"), 2)[:, :1], alone, rtol=1e-6, atol=1e-6)


def test_other_models_are_continued_from_their_cache(make_lm, family):
    assert make_lm(family).capabilities.reads_on_from_cache
