"""Tests the search for v* and z: its reports agree with plain forward passes of the hooked model, and values optimised
together agree with those of the plain path, one edit at a time."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from afteredit.bench.plain import plain_offset
from afteredit.edit.ingredients.least_squares import before_norm, factors
from afteredit.edit.ingredients.value_prompts import value_rows
from afteredit.edit.ingredients.value_search import (
    groups_of_like_length,
    optimise_streams,
    optimise_values,
)
from afteredit.edit.method import Prepared
from afteredit.edit.methods.memit import Memit
from afteredit.edit.methods.rome import Rome
from afteredit.edit.request import EditRequest
from afteredit.edit.update import Dense
from afteredit.store.errors import NoEdit

CONTEXTS = ("", "The old man said that", "It is known")
LAYER = 1


def request(number: int, subject: str, prompt: str, target: str) -> EditRequest:
    return EditRequest(id=f"r{number}", subject=subject, prompt=prompt, target_new=target)


REQUESTS = [
    request(0, "Ann", "The mother tongue of {} is", "English"),
    request(1, "China", "{}", "old"),
    request(2, "Joe DiMaggio", "The sport that brought {} to fame is known as", "tennis and golf"),
    request(3, "Peru", "The banknotes of {} carry", "the sol"),
]
SETTINGS = Rome(value_steps=5, value_lr=0.3, weight_decay=0.01, max_offset=3.0, stop_loss=4.0)


def test_values_optimised_together_are_the_plain_paths_in_float64(exact_lm, float64_throughout):
    together = optimise_values(exact_lm, REQUESTS, CONTEXTS, LAYER, SETTINGS)
    for asked, value in zip(REQUESTS, together, strict=True):
        _, offset_D = plain_offset(exact_lm, asked, CONTEXTS, LAYER, SETTINGS)
        assert float(offset_D.norm()) > 0
        assert float((value.offset_D - offset_D).norm()) <= 1e-6 * float(offset_D.norm())


def test_a_model_whose_blocks_cannot_be_cut_has_the_same_values_by_whole_rows(make_lm, float64_throughout):
    """Block 2 adds a running mean of all earlier positions, which no cache holds."""
    lm = make_lm("llama", dtype=torch.float64)
    lm.anatomy.blocks[2].register_forward_hook(
        lambda _m, _a, out: out + out.cumsum(1) / torch.arange(1, out.shape[1] + 1)[:, None]
    )
    for asked, value in zip(REQUESTS, optimise_values(lm, REQUESTS, CONTEXTS, LAYER, SETTINGS), strict=True):
        _, offset_D = plain_offset(lm, asked, CONTEXTS, LAYER, SETTINGS)
        assert float(offset_D.norm()) > 0
        assert float((value.offset_D - offset_D).norm()) <= 1e-6 * float(offset_D.norm())


def test_targets_optimised_together_are_the_plain_paths_in_float64(exact_lm, float64_throughout):
    together = optimise_streams(exact_lm, REQUESTS, CONTEXTS, LAYER, SETTINGS)
    for asked, target in zip(REQUESTS, together, strict=True):
        start_D, offset_D = plain_offset(exact_lm, asked, CONTEXTS, LAYER, SETTINGS, stream=True)
        z_D = start_D + offset_D
        assert float(offset_D.norm()) > 1e-3 * float(z_D.norm())
        assert float((target.z_D - z_D).norm()) <= 1e-6 * float(offset_D.norm())


def second_moment(F: int) -> torch.Tensor:
    sample_NF = torch.randn(4 * F, F, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return sample_NF.T @ sample_NF / len(sample_NF)


def plain_keys(lm, asked, plain_pass, layer=LAYER) -> torch.Tensor:
    """Returns (C, F): under each context, the key of the last token of the text that ends with the subject."""
    keys = []
    for context in CONTEXTS:
        front = f"{context}. " if context else ""
        ids = lm.tokens.encode(front + asked.question)
        at = len(lm.tokens.encode(front + asked.prompt.partition("{}")[0] + asked.subject)) - 1
        keys.append(plain_pass(lm, ids, layer, at).keys_TF[at])
    return torch.stack(keys)


def plain_residual(lm, R_DE: torch.Tensor, plain_pass, layer=LAYER) -> torch.Tensor:
    """Returns what the MLP's output must change by for the stream to change by R: R, but behind a norm."""
    g_D = lm.capabilities.mlp_scale(layer)
    if g_D is None:
        return R_DE
    now = []
    for asked in REQUESTS:
        ids = lm.tokens.encode(asked.prompt.partition("{}")[0] + asked.subject)
        now.append(plain_pass(lm, ids, layer, len(ids) - 1).value_D)
    now_DE = torch.stack(now, 1)
    added_DE = g_D[:, None] * now_DE / now_DE.square().mean(0).sqrt()
    return before_norm(added_DE + R_DE, now_DE, g_D) - now_DE


def test_romes_updates_are_the_plain_paths_in_float64(exact_lm, float64_throughout, plain_pass):
    """The facts are optimised together; their factors are stored in float32, so they agree to 1e-7."""
    lm, method = exact_lm, replace(SETTINGS, layer=LAYER)
    C_FF = second_moment(lm.widths(LAYER)[1])
    prepared = Prepared(CONTEXTS, factors=factors({"second_moment": C_FF}))
    prepared = replace(prepared, values=method.find_values(lm, REQUESTS, prepared, 8))
    for asked in REQUESTS:
        update = method.update(lm, [asked], prepared, {})
        _, offset_D = plain_offset(lm, asked, CONTEXTS, LAYER, SETTINGS)
        key_F = plain_keys(lm, asked, plain_pass).mean(0)
        direction_F = torch.linalg.solve(C_FF, key_F)
        expected_DF = torch.outer(offset_D, direction_F) / (direction_F @ key_F)
        (change,) = update.changes.values()
        assert float((change.dense() - expected_DF).norm()) <= 1e-6 * float(expected_DF.norm())


def test_memits_update_is_the_plain_paths_in_float64(exact_lm, float64_throughout, plain_pass):
    lm = exact_lm
    method = Memit(layers=[LAYER], second_moment_weight=0.5, value_steps=5, value_lr=0.3, stop_loss=4.0)
    C_FF = second_moment(lm.widths(LAYER)[1])
    update = method.update(lm, REQUESTS, Prepared(CONTEXTS, factors=factors({f"second_moment/{LAYER}": C_FF})), {})
    keys, offsets = [], []
    for asked in REQUESTS:
        keys_CF = plain_keys(lm, asked, plain_pass)
        keys.append((keys_CF[0] + keys_CF[1:].mean(0)) / 2)
        offsets.append(plain_offset(lm, asked, CONTEXTS, LAYER, method, stream=True)[1])
    K_FE, R_DE = torch.stack(keys, 1), plain_residual(lm, torch.stack(offsets, 1), plain_pass)
    expected_DF = R_DE @ torch.linalg.solve(0.5 * C_FF + K_FE @ K_FE.T, K_FE).T
    (change,) = update.changes.values()
    assert float((change.dense() - expected_DF).norm()) <= 1e-6 * float(expected_DF.norm())


def test_memits_two_blocks_in_turn_are_the_plain_paths_in_float64(exact_lm, float64_throughout, plain_pass):
    """Each block is solved on the model that earlier blocks have changed, for its share of the remaining residual."""
    lm, layers = exact_lm, [LAYER, LAYER + 1]
    method = Memit(layers=layers, second_moment_weight=0.5, value_steps=5, value_lr=0.3, stop_loss=4.0)
    moments = {layer: second_moment(lm.widths(layer)[1]) for layer in layers}
    prepared = Prepared(CONTEXTS, factors=factors({f"second_moment/{layer}": C_FF for layer, C_FF in moments.items()}))
    update = method.update(lm, REQUESTS, prepared, {})
    found = [plain_offset(lm, asked, CONTEXTS, layers[-1], method, stream=True) for asked in REQUESTS]
    z_DE = torch.stack([start_D + offset_D for start_D, offset_D in found], 1)
    only_start = replace(method, value_steps=1)
    for i, layer in enumerate(layers):
        name, keys = lm.mlp_out_name(layer), [plain_keys(lm, asked, plain_pass, layer) for asked in REQUESTS]
        K_FE = torch.stack([(keys_CF[0] + keys_CF[1:].mean(0)) / 2 for keys_CF in keys], 1)
        now = [plain_offset(lm, asked, CONTEXTS, layers[-1], only_start, stream=True)[0] for asked in REQUESTS]
        R_DE = plain_residual(lm, (z_DE - torch.stack(now, 1)) / (len(layers) - i), plain_pass, layer)
        expected_DF = R_DE @ torch.linalg.solve(0.5 * moments[layer] + K_FE @ K_FE.T, K_FE).T
        assert float((update.changes[name].dense() - expected_DF).norm()) <= 1e-6 * float(expected_DF.norm()) > 0
        lm.weights.add({name: Dense(expected_DF)})


def test_each_stops_on_its_own_and_what_is_done_is_not_stepped_on(exact_lm, float64_throughout):
    alone = [optimise_values(exact_lm, [asked], CONTEXTS, LAYER, SETTINGS)[0] for asked in REQUESTS]
    losses = sorted(value.diagnostics["loss"] for value in alone)
    settings = Rome(**{**SETTINGS.__dict__, "value_steps": 16, "stop_loss": (losses[1] + losses[2]) / 2})
    alone = [optimise_values(exact_lm, [asked], CONTEXTS, LAYER, settings)[0] for asked in REQUESTS]
    together = optimise_values(exact_lm, REQUESTS, CONTEXTS, LAYER, settings)
    assert len({value.diagnostics["steps"] for value in alone}) > 1
    for one, other in zip(alone, together, strict=True):
        assert one.diagnostics == pytest.approx(other.diagnostics, rel=1e-6, abs=1e-12)
        assert_close(one.offset_D, other.offset_D, rtol=1e-7, atol=1e-9)
        assert_close(one.key_F, other.key_F, rtol=1e-9, atol=1e-12)


def test_groups_hold_what_is_alike_and_no_more_than_their_size(make_lm):
    lm = make_lm("gpt2")
    many = [request(i, "Ann", "{} " + "is " * (1 + i % 5), "here") for i in range(8)]
    groups = groups_of_like_length(lm, many, 2)
    assert [len(group) for group in groups] == [2] * 4
    lengths = [[len(asked.prompt) for asked in group] for group in groups]
    assert sum(lengths, []) == sorted(sum(lengths, []))


def reference_loss(lm, fact, offset_D, settings, plain_pass, plain_nll) -> dict[str, float]:
    """Returns eq. 4 term by term, computed one row at a time."""
    nlls, values = [], []
    target = lm.tokens.answer_ids(fact.target_new, fact.question)
    for context in CONTEXTS:
        front = f"{context}. " if context else ""
        ids = lm.tokens.encode(front + fact.question)
        at = len(lm.tokens.encode(front + fact.prompt.partition("{}")[0] + fact.subject)) - 1
        nlls.append(plain_nll(lm, ids, target, 2, at, offset_D))
        values.append(plain_pass(lm, ids, 2, at).value_D)
    norm = torch.stack(values).mean(0).norm()
    about, at = lm.tokens.encode(f"{fact.subject} is a"), len(lm.tokens.encode(fact.subject)) - 1
    old_V = plain_pass(lm, about, 2, at).logits_TV[-1].log_softmax(-1)
    new_V = plain_pass(lm, about, 2, at, offset_D).logits_TV[-1].log_softmax(-1)
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
    (value,) = optimise_values(lm, [fact], CONTEXTS, 2, settings)
    expected = reference_loss(lm, fact, value.offset_D, settings, plain_pass, plain_nll)
    assert {name: value.diagnostics[name] for name in expected} == pytest.approx(expected, rel=1e-3, abs=1e-5)
    zero = reference_loss(lm, fact, torch.zeros_like(value.offset_D), settings, plain_pass, plain_nll)
    assert value.diagnostics["nll_before"] == pytest.approx(zero["nll_after"], rel=1e-4)


def test_the_target_gets_likelier(make_lm, family, fact):
    (value,) = optimise_values(make_lm(family), [fact], CONTEXTS, 2, Rome(value_steps=20, weight_decay=0.0))
    assert value.diagnostics["nll_after"] < value.diagnostics["nll_before"] - 0.03


def test_the_offset_stays_within_its_cap(make_lm, family, fact):
    lm = make_lm(family)
    settings = Rome(value_steps=6, value_lr=5.0, weight_decay=0.0, max_offset=0.25)
    (value,) = optimise_values(lm, [fact], CONTEXTS, 2, settings)
    assert value.diagnostics["offset_over_start"] == pytest.approx(0.25, rel=1e-4)


def test_a_step_that_float32_cannot_hold_asks_for_a_lower_value_lr(make_lm, fact):
    """Adam's first step is value_lr in each of D entries: its norm squared is D · 1e60, and float32 ends at 3.4e38."""
    with pytest.raises(NoEdit, match=r"^a step of value_lr=1e\+30 .*; choose a lower value_lr$"):
        optimise_values(make_lm("gpt2"), [fact], CONTEXTS, 2, Rome(value_steps=2, value_lr=1e30))


def test_the_last_of_the_losses_is_not_stepped_on(make_lm, fact):
    (value,) = optimise_values(make_lm("gpt2"), [fact], CONTEXTS, 2, Rome(value_steps=1))
    assert not value.offset_D.any()


def test_a_loss_below_stop_loss_ends_the_search(make_lm, fact):
    (value,) = optimise_values(make_lm("gpt2"), [fact], CONTEXTS, 2, Rome(value_steps=9, stop_loss=1e9))
    assert value.diagnostics["steps"] == 0
    assert not value.offset_D.any()


def test_the_prompts_end_where_the_answer_begins(make_lm, fact):
    lm = make_lm("llama", start_token="<s>")
    prompts = value_rows(lm, fact, CONTEXTS)
    for context, row, end in zip(CONTEXTS, prompts.ids, prompts.prompt_ends, strict=False):
        text = (f"{context}. " if context else "") + fact.question
        assert lm.tokenizer.decode(row[1 : end + 1]) == text
        assert lm.tokenizer.decode([*row[1:], prompts.target[-1]]) == f"{text} {fact.target_new}"
