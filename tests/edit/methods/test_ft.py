"""Tests that FT takes the steps of a plain optimiser on the real parameter, and caps every entry."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from afteredit.edit.method import Prepared
from afteredit.edit.methods.ft import Ft
from afteredit.model.weights import is_transposed
from afteredit.store.errors import BadInput


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


def adam_by_hand(lm, groups, passes: int, rate: float, cap: float) -> torch.Tensor:
    """Returns what plain Adam on the parameter of block 1 makes, one step per group of facts, pass after pass; every
    fact has a forward pass of its own."""
    weight = lm.mlp_out(1).weight
    start = weight.detach().clone()
    weight.requires_grad_(True)
    adam = torch.optim.Adam([weight], lr=rate)
    for _ in range(passes):
        for group in groups:
            adam.zero_grad()
            for request in group:
                answer = lm.tokens.answer_ids(request.target_new, request.question)
                row = [*lm.tokens.question_ids(request.question), *answer]
                log_p_TV = lm.model(torch.tensor([row])).logits[0, len(row) - len(answer) - 1 : -1].log_softmax(-1)
                nll = -sum(log_p_TV[i, token] for i, token in enumerate(answer)) / len(answer)
                (nll / len(group)).backward()
            adam.step()
            with torch.no_grad():
                weight.copy_(start + (weight - start).clamp(-cap, cap))
    moved = weight.detach() - start
    with torch.no_grad():
        weight.copy_(start)
    weight.requires_grad_(False)
    return moved


@pytest.mark.parametrize(("epochs", "minibatch", "steps"), [(2, 2, 1), (3, 1, 1), (0, 1, 4), (2, 5, 1)])
def test_passes_over_a_batch_take_small_steps_in_its_order(
    make_lm, family, fact, second_fact, float64_throughout, float64_changes, epochs, minibatch, steps
):
    third = replace(fact, id="f3", subject="Peru", prompt="The banknotes of {} carry the name of", target_new="rand")
    facts, lm = [fact, second_fact, third], make_lm(family, dtype=torch.float64)
    method = Ft(layers=[1], epochs=epochs, minibatch=minibatch, steps=steps, learning_rate=1e-3, max_change=2.5e-3,
                stop_loss=0.0)  # fmt: skip
    update = method.update(lm, facts, Prepared(), {})
    size = minibatch if epochs else len(facts)
    groups = [facts[i : i + size] for i in range(0, len(facts), size)]
    expected = adam_by_hand(lm, groups, epochs or steps - 1, 1e-3, 2.5e-3)
    lm.weights.add(update.changes)
    name = lm.mlp_out_name(1)
    moved = lm.weights.W(name) - lm.weights.W_base(name)
    assert_close(moved, expected if moved.shape == expected.shape and not is_transposed(lm.mlp_out(1)) else expected.T,
                 rtol=0, atol=1e-9)  # fmt: skip
    assert update.diagnostics["steps"] == (epochs or steps - 1) * len(groups)


def test_facts_that_are_learned_take_no_more_steps(make_lm, fact, second_fact):
    """A pass that makes no step is the last; one fact may need steps that another does not."""
    lm, facts = make_lm("llama"), [fact, second_fact]
    keys = {"layers": [1], "learning_rate": 1e-2, "max_change": 1.0, "epochs": 50, "minibatch": 1}
    enough = Ft(layers=[1], steps=1).update(lm, facts, Prepared(), {}).diagnostics["loss"] - 0.5
    update = Ft(**keys, stop_loss=enough).update(lm, facts, Prepared(), {})
    assert 2 < update.diagnostics["steps"] < 100
    assert update.diagnostics["loss"] < enough
    assert Ft(**keys, stop_loss=1e9).update(lm, [fact], Prepared(), {}).diagnostics["steps"] == 0


def test_a_batch_is_one_loss_and_padding_does_not_matter(make_lm, fact, second_fact):
    lm = make_lm("llama", dtype=torch.float64)
    losses = [Ft(layers=[1], steps=1).update(lm, facts, Prepared(), {}).diagnostics["loss"]
              for facts in ([fact], [second_fact], [fact, second_fact])]  # fmt: skip
    assert losses[2] == pytest.approx((losses[0] + losses[1]) / 2, rel=1e-9)


@pytest.mark.parametrize(("key", "value"), [("epochs", -1), ("minibatch", 0), ("max_change", 0.0), ("steps", 0)])
def test_a_number_that_makes_no_sense_is_refused_by_its_key(key, value):
    with pytest.raises(BadInput, match=rf"^method\.{key}={value}; it must be"):
        Ft(**{key: value})


def test_training_lowers_the_loss_and_stops_early(make_lm, fact):
    lm = make_lm("gpt2")
    update = Ft(layers=[1], steps=20, learning_rate=1e-2, max_change=1.0).update(lm, [fact], Prepared(), {})
    assert update.diagnostics["loss"] < update.diagnostics["loss_before"]
    update = Ft(layers=[1], steps=20, stop_loss=1e9).update(lm, [fact], Prepared(), {})
    assert update.diagnostics["steps"] == 0
    assert update.diagnostics["update_norm"] == 0
