"""v*: what the optimiser reports must be what plain forward passes of the hooked model say."""

import pytest
import torch

from afteredit.edit.ingredients.target_value import optimise_values
from afteredit.edit.ingredients.value_prompts import value_prompts
from afteredit.edit.methods.rome import Rome

CONTEXTS = ("", "The old man said that", "It is known")
LAYER = 2


def reference_loss(lm, fact, offset_D, settings, plain_pass, plain_nll) -> dict[str, float]:
    """Eq. 4 term by term, one row at a time."""
    nlls, values = [], []
    target = lm.tokens.answer_ids(fact.target_new)
    for context in CONTEXTS:
        front = f"{context}. " if context else ""
        ids = lm.tokens.encode(front + fact.question)
        at = len(lm.tokens.encode(front + fact.prompt.partition("{}")[0] + fact.subject)) - 1
        nlls.append(plain_nll(lm, ids, target, LAYER, at, offset_D))
        values.append(plain_pass(lm, ids, LAYER, at).value_D)
    norm = torch.stack(values).mean(0).norm()
    about, at = lm.tokens.encode(f"{fact.subject} is a"), len(lm.tokens.encode(fact.subject)) - 1
    old_V = plain_pass(lm, about, LAYER, at).logits_TV[-1].log_softmax(-1)
    new_V = plain_pass(lm, about, LAYER, at, offset_D).logits_TV[-1].log_softmax(-1)
    nll, kl = torch.stack(nlls).mean(), (new_V.exp() * (new_V - old_V)).sum()
    loss = nll + settings.kl_weight * kl + settings.weight_decay * offset_D.norm() / norm**2
    return {"nll_after": float(nll), "kl": float(kl), "loss": float(loss),
            "offset_over_start": float(offset_D.norm() / norm)}  # fmt: skip


@pytest.mark.parametrize("start_token", [None, "<s>"])
def test_the_reported_losses_are_those_of_plain_forward_passes(
    make_lm, family, fact, plain_pass, plain_nll, start_token
):
    lm = make_lm(family, start_token=start_token)
    settings = Rome(value_steps=5, kl_weight=0.7, weight_decay=3.0)
    (value,) = optimise_values(lm, [fact], CONTEXTS, LAYER, settings)
    expected = reference_loss(lm, fact, value.offset_D, settings, plain_pass, plain_nll)
    assert {name: value.diagnostics[name] for name in expected} == pytest.approx(expected, rel=1e-3, abs=1e-5)
    zero = reference_loss(lm, fact, torch.zeros_like(value.offset_D), settings, plain_pass, plain_nll)
    assert value.diagnostics["nll_before"] == pytest.approx(zero["nll_after"], rel=1e-4)


def test_the_target_gets_likelier(make_lm, family, fact):
    (value,) = optimise_values(make_lm(family), [fact], CONTEXTS, LAYER, Rome(value_steps=20, weight_decay=0.0))
    assert value.diagnostics["nll_after"] < value.diagnostics["nll_before"] - 0.03


def test_the_offset_stays_within_its_cap(make_lm, family, fact):
    lm = make_lm(family)
    settings = Rome(value_steps=6, value_lr=5.0, weight_decay=0.0, max_offset=0.25)
    (value,) = optimise_values(lm, [fact], CONTEXTS, LAYER, settings)
    assert value.diagnostics["offset_over_start"] == pytest.approx(0.25, rel=1e-4)


def test_the_last_of_the_losses_is_not_stepped_on(make_lm, fact):
    (value,) = optimise_values(make_lm("gpt2"), [fact], CONTEXTS, LAYER, Rome(value_steps=1))
    assert not value.offset_D.any()


def test_a_loss_below_stop_loss_ends_the_search(make_lm, fact):
    (value,) = optimise_values(make_lm("gpt2"), [fact], CONTEXTS, LAYER, Rome(value_steps=9, stop_loss=1e9))
    assert value.diagnostics["steps"] == 0
    assert not value.offset_D.any()


def test_the_prompts_end_where_the_answer_begins(make_lm, fact):
    lm = make_lm("llama", start_token="<s>")
    prompts = value_prompts(lm, fact, CONTEXTS)
    for context, row, end in zip(CONTEXTS, prompts.rows, prompts.prompt_ends, strict=False):
        text = (f"{context}. " if context else "") + fact.question
        assert lm.tokenizer.decode(row[1 : end + 1]) == text
        assert lm.tokenizer.decode([*row[1:], prompts.target[-1]]) == f"{text} {fact.target_new}"
