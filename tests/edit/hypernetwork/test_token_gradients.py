"""Tests rank-one terms against autograd's gradient, and rows with changed matrices against changed models."""

import pytest
import torch
from torch.testing import assert_close

from afteredit.edit.hypernetwork.token_gradients import Answers, each_row_changed, gradient_terms
from afteredit.edit.update import LowRank
from afteredit.model.weights import is_transposed

LAYERS = [1, 2, 3]
ASKED = [("The sport that brought Joe DiMaggio to fame is", "boxing"), ("China uses the", "rand of old")]


@pytest.fixture
def lm(make_lm, family, float64_throughout):
    return make_lm(family, start_token="<s>" if family == "llama" else None, dtype=torch.float64)


def gradients(lm, question: str, answer: str) -> dict[int, torch.Tensor]:
    """Returns ∇W (D, F) of −log p(answer) per block, by autograd on the weights of the plain model."""
    ids, target = lm.tokens.encode(question), lm.tokens.answer_ids(answer, question)
    weights = [lm.mlp_out(layer).weight.requires_grad_() for layer in LAYERS]
    logits_TV = lm.model(input_ids=torch.tensor([[*ids, *target]])).logits[0, len(ids) - 1 : -1]
    found = torch.autograd.grad(torch.nn.functional.cross_entropy(logits_TV, torch.tensor(target)), weights)
    for weight in weights:
        weight.requires_grad_(False)
    return {layer: gradient.T if is_transposed(lm.mlp_out(layer)) else gradient
            for layer, gradient in zip(LAYERS, found, strict=True)}  # fmt: skip


def test_terms_sum_up_to_the_gradient_of_each_row(lm):
    terms, _ = gradient_terms(lm, Answers(lm, ASKED, LAYERS))
    for row, asked in enumerate(ASKED):
        for layer, expected_DF in gradients(lm, *asked).items():
            part = terms[layer].rows_N == row
            sum_DF = terms[layer].deltas_ND[part].T @ terms[layer].keys_NF[part]
            assert sum_DF.shape == lm.widths(layer)
            assert_close(sum_DF, expected_DF, rtol=0, atol=1e-6 * float(expected_DF.abs().max()))


def test_only_tokens_that_have_a_part_in_the_loss_have_a_term(lm):
    """In the last block the tokens with needed logits count, below it every token of the row; padding never does."""
    terms, _ = gradient_terms(lm, Answers(lm, ASKED, LAYERS))
    for row, (question, answer) in enumerate(ASKED):
        n_prompt, n_answer = len(lm.tokens.encode(question)), len(lm.tokens.answer_ids(answer, question))
        columns = [terms[layer].columns_N[terms[layer].rows_N == row].tolist() for layer in LAYERS]
        assert columns[-1] == list(range(n_prompt - 1, n_prompt + n_answer - 1))
        assert columns[0] == list(range(n_prompt + n_answer - 1))


def test_the_outcome_is_that_of_plain_forward_passes(lm, plain_nll, plain_pass, monkeypatch):
    """One answer is the one that the model gives; the other differs in its second token only."""
    ids = [lm.tokens.encode(question) for question, _ in ASKED]
    said = []
    for row in ids:
        for _ in range(2):
            row = (*row, int(plain_pass(lm, row, 0, 0).logits_TV[-1].argmax()))
        said.append(row[-2:])
    targets = {"right": said[0], "wrong": (said[1][0], said[1][1] - 1)}
    monkeypatch.setattr(lm.tokens, "answer_ids", lambda answer, _question: targets[answer])
    nll_B, forced_B = Answers(lm, [(ASKED[0][0], "right"), (ASKED[1][0], "wrong")], LAYERS).outcome()
    assert forced_B.tolist() == [True, False]
    expected_B = torch.stack([plain_nll(lm, row, target) for row, target in zip(ids, targets.values(), strict=True)])
    assert_close(nll_B, expected_B.to(nll_B), rtol=1e-5, atol=1e-5)


def test_each_row_sees_its_own_change_as_if_it_had_been_applied(lm, plain_nll):
    generator = torch.Generator().manual_seed(0)
    answers = Answers(lm, ASKED, LAYERS)
    draw = {layer: [0.3 * torch.randn(2, 4, width, generator=generator) for width in lm.widths(layer)]
            for layer in LAYERS}  # fmt: skip
    untouched_B, _ = answers.outcome()
    with each_row_changed(lm, draw):
        nll_B, _ = answers.outcome()
    assert torch.equal(answers.outcome()[0], untouched_B)
    assert float((nll_B - untouched_B).abs().min()) > 0.01
    for row, (question, answer) in enumerate(ASKED):
        lm.weights.add({lm.mlp_out_name(n): LowRank(left[row].T, right[row].T) for n, (left, right) in draw.items()})
        expected = plain_nll(lm, lm.tokens.encode(question), lm.tokens.answer_ids(answer, question))
        lm.weights.restore()
        assert_close(nll_B[row], expected.to(nll_B), rtol=1e-5, atol=1e-5)


def test_hooks_are_gone_even_when_the_pass_inside_fails(lm):
    with (
        pytest.raises(RuntimeError, match="inside"),
        each_row_changed(lm, {1: (torch.zeros(1, 1, 32), torch.zeros(1, 1, 48))}),
    ):
        raise RuntimeError("inside")
    gradient_terms(lm, Answers(lm, ASKED, LAYERS))
    assert not any(lm.mlp_out(layer)._forward_hooks for layer in LAYERS)


def test_spreading_terms_over_rows_and_back_is_the_identity(lm):
    terms = gradient_terms(lm, Answers(lm, ASKED, LAYERS))[0][1]
    spread_BTF = terms.by_row(terms.keys_NF)
    assert torch.equal(spread_BTF[terms.rows_N, terms.columns_N], terms.keys_NF)
    assert int((spread_BTF != 0).any(-1).sum()) == len(terms.keys_NF)
