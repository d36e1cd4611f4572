"""Tests integrated gradients against plain forward passes with a replaced key, and autograd, in float64."""

import pytest
import torch
from torch.testing import assert_close

from afteredit.edit.ingredients.neuron_attribution import Attribution, attribute

ANSWERS = {"one_token": 1, "four_tokens": 4}


@pytest.fixture(params=[(n, start) for n in ANSWERS for start in (None, "<s>")], ids=str)
def asked(request, make_lm, family, fact):
    """Returns a float64 model, a fact's question and the first tokens of its true answer."""
    name, start = request.param
    lm = make_lm(family, start_token=start, dtype=torch.float64)
    answer = lm.tokens.answer_ids(fact.target_true, fact.question)[: ANSWERS[name]]
    assert len(answer) == ANSWERS[name]
    return lm, fact.question, answer


def probability(lm, row, token, layer, key_of=None):
    """Returns P(token | row) with the block's key at the last token replaced by `key_of(key_F)`."""
    seen = {}

    def replace(_module, args):
        seen["key_F"] = args[0][0, -1].detach()
        if key_of is None:
            return None
        return (torch.cat([args[0][:, :-1], key_of(seen["key_F"])[None, None]], dim=1),)

    hook = lm.mlp_out(layer).register_forward_pre_hook(replace)
    try:
        logits_V = lm.model(input_ids=torch.tensor([row]), use_cache=False).logits[0, -1]
    finally:
        hook.remove()
    return logits_V.double().softmax(-1)[token], seen["key_F"]


def slow_scores(lm, row, token, layer, steps) -> torch.Tensor:
    _, key_F = probability(lm, row, token, layer)
    total_F = torch.zeros_like(key_F)
    for m in range(steps):
        scaled_F = ((2 * m + 1) / (2 * steps) * key_F).requires_grad_()
        p, _ = probability(lm, row, token, layer, lambda _, scaled_F=scaled_F: scaled_F)
        total_F += torch.autograd.grad(p, scaled_F)[0]
    return key_F * total_F / steps


def predictions(lm, question, answer) -> list[tuple[list[int], int]]:
    """Returns for each answer token the row after which it is predicted, and the token."""
    ids = list(lm.tokens.encode(question))
    return [(ids + list(answer[:i]), token) for i, token in enumerate(answer)]


def test_scores_are_those_of_plain_passes_with_a_scaled_key(asked):
    lm, question, answer = asked
    found = attribute(lm, question, answer, steps=3)
    assert len(found.scores_F) == len(found.gains) == lm.n_blocks
    for layer, scores_F in enumerate(found.scores_F):
        expected_F = sum(slow_scores(lm, row, token, layer, 3) for row, token in predictions(lm, question, answer))
        assert_close(scores_F, expected_F, rtol=1e-5, atol=1e-5 * float(expected_F.abs().max()))


def test_scores_of_every_block_sum_to_what_its_key_does_for_the_answer(asked):
    lm, question, answer = asked
    found = attribute(lm, question, answer, steps=200)
    for layer, (scores_F, gain) in enumerate(zip(found.scores_F, found.gains, strict=True)):
        expected = 0.0
        with torch.no_grad():
            for row, token in predictions(lm, question, answer):
                whole, _ = probability(lm, row, token, layer)
                silenced, _ = probability(lm, row, token, layer, torch.zeros_like)
                expected += float(whole - silenced)
        assert gain == pytest.approx(expected, rel=1e-3)
        assert float(scores_F.sum()) == pytest.approx(expected, rel=0.01)


def test_a_question_of_one_token_needs_nothing_before_it(make_lm, family):
    lm = make_lm(family, dtype=torch.float64)
    token = lm.tokens.answer_ids("baseball", "Q")[0]
    (id_,) = lm.tokens.encode("Q")
    (scores_F, *_) = attribute(lm, "Q", [token], steps=2).scores_F
    expected_F = slow_scores(lm, [id_], token, 0, 2)
    assert_close(scores_F, expected_F, rtol=1e-5, atol=1e-5 * float(expected_F.abs().max()))


def test_scores_in_bfloat16_are_near_those_in_float32(make_lm, family, fact):
    half, full = (make_lm(family, dtype=dtype) for dtype in (torch.bfloat16, torch.float32))
    answer = full.tokens.answer_ids(fact.target_true, fact.question)
    got, want = (torch.cat(attribute(lm, fact.question, answer, steps=5).scores_F) for lm in (half, full))
    assert got.dtype == torch.float32
    assert float(torch.cosine_similarity(got, want, dim=0)) > 0.95


def test_attributing_leaves_the_model_as_it_was(make_lm, family, fact):
    lm = make_lm(family)
    before = {name: parameter.clone() for name, parameter in lm.model.named_parameters()}
    attribute(lm, fact.question, lm.tokens.answer_ids(fact.target_true, fact.question), steps=2)
    for name, parameter in lm.model.named_parameters():
        assert torch.equal(parameter, before[name]), name
        assert parameter.grad is None
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in lm.model.modules())


def test_the_completeness_error_is_the_relative_one_of_the_block_that_does_most():
    scores_F = [torch.tensor([0.1, 0.1]), torch.tensor([-0.6, 0.15])]
    assert Attribution(scores_F, [0.3, -0.5]).completeness_error() == pytest.approx(0.1, rel=1e-5)
    assert Attribution(scores_F, [0.3, -0.2]).completeness_error() == pytest.approx(1 / 3, rel=1e-5)
    assert Attribution([torch.zeros(2)], [0.0]).completeness_error() == 0.0
