"""Tests that FT takes the steps of a plain optimiser on the real parameter, and caps every entry."""

import pytest
import torch
from torch.testing import assert_close

from afteredit.edit.method import Prepared
from afteredit.edit.methods.ft import Ft, target_nll


@pytest.fixture
def float64_changes():
    """The change that FT trains is float64, as the models here are."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_two_steps_equal_adam_on_the_parameter_itself(make_lm, family, fact, float64_throughout, float64_changes):
    """This runs in float64: for a gradient near zero, Adam's float32 steps depend on the processor's order of sums."""
    method = Ft(layers=[1], steps=3, learning_rate=1e-3, max_change=1.5e-3, stop_loss=0.0)
    lm, other = (make_lm(family, dtype=torch.float64) for _ in range(2))
    update = method.update(lm, [fact], Prepared(), {})
    weight = other.mlp_out(1).weight
    start = weight.detach().clone()
    weight.requires_grad_(True)
    adam = torch.optim.Adam([weight], lr=1e-3)
    target = other.tokens.answer_ids(fact.target_new, fact.question)
    row = [*other.tokens.question_ids(fact.question), *target]
    places = torch.arange(len(row) - len(target) - 1, len(row) - 1)
    for _ in range(2):
        adam.zero_grad()
        log_p_TV = other.model(torch.tensor([row])).logits[0].log_softmax(-1)
        (-log_p_TV[places, torch.tensor(target)].mean()).backward()
        adam.step()
        with torch.no_grad():
            weight.copy_(start + (weight - start).clamp(-1.5e-3, 1.5e-3))
    lm.weights.add(update.changes)
    moved = weight.detach() - start
    assert float(moved.abs().max()) > 1e-3
    assert_close(lm.mlp_out(1).weight, weight.detach(), rtol=0, atol=1e-9)


def test_no_entry_moves_further_than_allowed_and_nothing_else_moves(make_lm, family, fact):
    lm = make_lm(family)
    before = {name: parameter.clone() for name, parameter in lm.model.named_parameters()}
    update = Ft(layers=[0, 2], steps=10, learning_rate=1e-2, max_change=3e-3).update(lm, [fact], Prepared(), {})
    for name, parameter in lm.model.named_parameters():
        assert torch.equal(parameter, before[name]), name
    assert sorted(update.changes) == sorted(lm.mlp_out_name(layer) for layer in (0, 2))
    for change in update.changes.values():
        assert float(change.dense().abs().max()) == pytest.approx(3e-3, rel=1e-5)


def test_a_batch_is_one_loss_and_padding_does_not_matter(make_lm, fact, second_fact):
    lm = make_lm("llama", dtype=torch.float64)
    rows = [
        (lm.tokens.question_ids(r.question), lm.tokens.answer_ids(r.target_new, r.question))
        for r in (fact, second_fact)
    ]
    alone = [target_nll(lm, [row]) for row in rows]
    assert_close(target_nll(lm, rows), torch.stack(alone).mean(), rtol=1e-6, atol=1e-9)


def test_training_lowers_the_loss_and_stops_early(make_lm, fact):
    lm = make_lm("gpt2")
    update = Ft(layers=[1], steps=20, learning_rate=1e-2, max_change=1.0).update(lm, [fact], Prepared(), {})
    assert update.diagnostics["loss"] < update.diagnostics["loss_before"]
    update = Ft(layers=[1], steps=20, stop_loss=1e9).update(lm, [fact], Prepared(), {})
    assert update.diagnostics["steps"] == 0
    assert update.diagnostics["update_norm"] == 0
