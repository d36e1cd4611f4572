"""Tests ROME: the closed form against an independent solver, the edit against plain forward passes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from afteredit.edit.ingredients.least_squares import factors, inverse_times
from afteredit.edit.method import Given, Prepared
from afteredit.edit.methods.rome import Keys, Rome, SecondMoment, rank_one

CONTEXTS = ("", "The old man said that", "It is known")


def spd(size: int, seed: int = 0) -> torch.Tensor:
    sample_NF = torch.randn(4 * size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return sample_NF.T @ sample_NF / len(sample_NF) + 0.05 * torch.eye(size, dtype=torch.float64)


def draw(n_out: int, n_in: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n_in, generator=generator), torch.randn(n_out, generator=generator)


def direction(C_FF: torch.Tensor, key_F: torch.Tensor) -> torch.Tensor:
    return inverse_times(factors({"C": C_FF})["C"], key_F[:, None])[:, 0]


def test_rank_one_writes_exactly_the_residual_at_the_key():
    key_F, residual_D = draw(6, 9)
    change, _ = rank_one(direction(spd(9), key_F), residual_D, key_F)
    assert change.left_Dr.shape == (6, 1)
    assert change.right_Fr.shape == (9, 1)
    assert_close(change.dense() @ key_F.double(), residual_D.double(), rtol=1e-6, atol=1e-7)


def test_rank_one_is_the_least_disturbing_matrix_that_does():
    """Solves min tr(U C Uᵀ) subject to U k = r, one multiplier per output, as one linear system in all entries of U."""
    D, F = 4, 7
    key_F, residual_D = draw(D, F)
    C, k, r = spd(F).numpy(), key_F.double().numpy(), residual_D.double().numpy()
    constraints = np.kron(np.eye(D), k[None])
    system = np.block([[np.kron(np.eye(D), 2 * C), constraints.T], [constraints, np.zeros((D, D))]])
    solution = np.linalg.solve(system, np.concatenate([np.zeros(D * F), r]))
    change, denominator = rank_one(direction(torch.from_numpy(C), key_F), residual_D, key_F)
    expected_DF = torch.from_numpy(solution[: D * F].reshape(D, F))
    assert_close(change.dense(), expected_DF, rtol=0, atol=1e-6 * float(expected_DF.abs().max()))
    multipliers = solution[D * F :]
    assert denominator == pytest.approx(float(-2 * r[0] / multipliers[0]), rel=1e-8)


def test_an_ill_conditioned_second_moment_is_solved_in_float64():
    """Float32 has seven digits; with a condition number of 1e9 none would be right."""
    F = 8
    basis_FF = torch.linalg.qr(spd(F, seed=2)).Q
    eigenvalues_F = torch.logspace(0, -9, F, dtype=torch.float64)
    key_F, residual_D = draw(3, F)
    C_FF = basis_FF @ eigenvalues_F.diag() @ basis_FF.T
    change, _ = rank_one(direction(C_FF, key_F), residual_D, key_F)
    direction_F = basis_FF @ (basis_FF.T @ key_F.double() / eigenvalues_F)
    expected_F = direction_F / (direction_F @ key_F.double())
    assert_close(change.right_Fr[:, 0].double(), expected_F, rtol=0, atol=1e-5 * float(expected_F.abs().max()))


def test_zero_residual_gives_zero_update():
    key_F, residual_D = draw(6, 9)
    change, _ = rank_one(direction(spd(9), key_F), torch.zeros_like(residual_D), key_F)
    assert not change.dense().any()


@pytest.fixture
def edited(make_lm, family, fact):
    """Returns a model, its weights before `update` was called, and the update of one fact at block 1."""
    lm = make_lm(family, start_token="<s>" if family == "llama" else None)
    before = {name: parameter.clone() for name, parameter in lm.model.named_parameters()}
    method = Rome(layer=1, value_steps=12, weight_decay=0.0)  # |v|² is tiny: decay would hold the offset at 0
    C = spd(lm.widths(1)[1])
    update = method.update(lm, [fact], Prepared(CONTEXTS, factors=factors({"second_moment": C})), {})
    return lm, before, update, C


def averaged_key(lm, fact, plain_pass) -> torch.Tensor:
    """Returns k* by plain forward passes; the subject's last token is the last one of the text that ends with it."""
    keys = []
    for context in CONTEXTS:
        front = f"{context}. " if context else ""
        row = lm.tokens.encode(front + fact.question)
        at = len(lm.tokens.encode(front + fact.prompt.partition("{}")[0] + fact.subject)) - 1
        keys.append(plain_pass(lm, row, 1, at).keys_TF[at])
    return torch.stack(keys).mean(0)


def test_the_key_is_the_mean_over_contexts_of_plain_forward_passes(edited, fact, plain_pass):
    lm, _, update, C = edited
    key_F = averaged_key(lm, fact, plain_pass).double()
    direction_F = torch.linalg.solve(C, key_F)
    (change,) = update.changes.values()
    expected_F = direction_F / (direction_F @ key_F)
    assert_close(change.right_Fr[:, 0].double(), expected_F, rtol=0, atol=1e-4 * float(expected_F.abs().max()))


def test_the_edited_module_gives_the_wanted_value_at_the_key(edited, fact, plain_pass):
    """The real module gives Ŵ k* + b = v*, with its biases and storage order."""
    lm, _, update, _ = edited
    key_F = averaged_key(lm, fact, plain_pass)
    old_D = lm.mlp_out(1)(key_F)
    (change,) = update.changes.values()
    assert float(change.left_Dr.norm()) > 0.1 * float(old_D.norm())
    lm.weights.add(update.changes)
    new_D = lm.mlp_out(1)(key_F)
    wanted_D = old_D + change.left_Dr[:, 0]
    assert float((new_D - wanted_D).norm() / wanted_D.norm()) < 1e-4


def test_update_mutates_nothing(edited):
    lm, before, _, _ = edited
    assert not lm.weights.base
    for name, parameter in lm.model.named_parameters():
        assert torch.equal(parameter, before[name]), name


def test_the_target_is_likelier_under_the_bare_prompt_after_the_edit(make_lm, family, fact, plain_pass, plain_nll):
    """A random model's key depends on little but its token, so the subject ends in a token that occurs nowhere else."""
    lm, fact = make_lm(family), replace(fact, subject="Joe DiMaggio Q7")
    texts = [*fact.paraphrases, *fact.neighbourhood, "China is a land in the east", "Fenrir lives with the old gods"]
    keys_NF = torch.cat([plain_pass(lm, lm.tokens.encode(text), 1, 0).keys_TF for text in texts]).double()
    C = keys_NF.T @ keys_NF / len(keys_NF) + 1e-3 * torch.eye(keys_NF.shape[1], dtype=torch.float64)
    method = Rome(layer=1, value_steps=20, weight_decay=0.0)
    update = method.update(lm, [fact], Prepared(CONTEXTS, factors=factors({"second_moment": C})), {})
    ids, target = lm.tokens.encode(fact.question), lm.tokens.answer_ids(fact.target_new, fact.question)
    before = plain_nll(lm, ids, target)
    lm.weights.add(update.changes)
    assert plain_nll(lm, ids, target) < before - 0.05


def test_without_a_layer_a_quarter_of_the_way_up_is_edited(make_lm, family, fact):
    lm = make_lm(family)
    prepared = Prepared(("",), factors=factors({"second_moment": spd(lm.widths(1)[1])}))
    update = Rome(layer=None, value_steps=2).update(lm, [fact], prepared, {})
    assert lm.n_blocks == 4
    assert Rome(layer=None).edited_layer(lm) == 1
    assert list(update.changes) == [lm.mlp_out_name(1)]


def plain_offset(lm, places, target, method, start_D, plain_pass) -> torch.Tensor:
    """Minimises eq. 4 without its KL term by Adam, one context at a time; decay and cap are those of `start_D`."""
    offset_D = torch.zeros_like(start_D, requires_grad=True)
    adam = torch.optim.Adam([offset_D], lr=method.value_lr)
    for _ in range(method.value_steps - 1):
        nlls = []
        for ids, at in places:
            log_p_TV = plain_pass(lm, [*ids, *target], 1, at, offset_D).logits_TV.log_softmax(-1)
            nlls.append(-log_p_TV[len(ids) - 1 : -1][range(len(target)), target].mean())
        loss = torch.stack(nlls).mean() + method.weight_decay * offset_D.norm() / start_D.norm() ** 2
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            cap = method.max_offset * start_D.norm()
            if offset_D.norm() > cap:
                offset_D.mul_(cap / offset_D.norm())
    return offset_D.detach()


@pytest.mark.parametrize("second_moment", SecondMoment, ids=lambda moment: moment.value)
@pytest.mark.parametrize("keys", Keys, ids=lambda keys: keys.value)
@pytest.mark.parametrize("max_offset", [0.1, 40.0])
def test_each_variant_is_its_formula(make_lm, family, fact, plain_pass, keys, second_moment, max_offset):
    """ΔW = δ (C⁻¹ k̄)ᵀ / (kᵀ C⁻¹ k̄).  k is k̄, the mean over contexts, or the bare prompt's key; δ is measured from the
    output at k, and that output caps it.  kmeng01/rome uses the bare prompt's key and output."""
    lm = make_lm(family)
    method = Rome(layer=1, value_steps=6, kl_weight=0.0, weight_decay=0.05, max_offset=max_offset, stop_loss=0.0,
                  contexts_short=0, contexts_long=0, keys=keys, second_moment=second_moment)  # fmt: skip
    F = lm.widths(1)[1]
    if second_moment is SecondMoment.identity:
        C_FF = torch.eye(F, dtype=torch.float64)
        constants = replace(method.prepare(lm, Given(0, list)), contexts=CONTEXTS)
    else:
        C_FF = spd(F)
        constants = Prepared(CONTEXTS, factors=factors({"second_moment": C_FF}))
    update = method.update(lm, [fact], constants, {})

    places = []
    for context in CONTEXTS:
        front = f"{context}. " if context else ""
        at = len(lm.tokens.encode(front + fact.prompt.partition("{}")[0] + fact.subject)) - 1
        places.append((lm.tokens.encode(front + fact.question), at))
    passes = [plain_pass(lm, ids, 1, at) for ids, at in places]
    keys_CF = torch.stack([seen.keys_TF[at] for seen, (_, at) in zip(passes, places, strict=True)])
    values_CD = torch.stack([seen.value_D for seen in passes])
    bare = keys is Keys.asymmetric
    second_key_F, start_D = (keys_CF[0], values_CD[0]) if bare else (keys_CF.mean(0), values_CD.mean(0))
    offset_D = plain_offset(
        lm, places, lm.tokens.answer_ids(fact.target_new, fact.question), method, start_D, plain_pass
    )
    if max_offset < 1:
        assert float(offset_D.norm()) == pytest.approx(max_offset * float(start_D.norm()), rel=1e-5)
    direction_F = np.linalg.inv(C_FF.numpy()) @ keys_CF.double().mean(0).numpy()
    expected_DF = np.outer(offset_D.double().numpy(), direction_F) / (second_key_F.double().numpy() @ direction_F)
    (change,) = update.changes.values()
    assert_close(change.dense(), torch.from_numpy(expected_DF), rtol=0, atol=1e-3 * float(np.abs(expected_DF).max()))


def test_without_a_corpus_the_second_moment_is_the_identity(make_lm, family):
    lm = make_lm(family)
    method = Rome(layer=1, contexts_short=0, contexts_long=0, second_moment=SecondMoment.identity)
    prepared = method.prepare(lm, Given(0, list))
    assert not prepared.tensors and not prepared.hashes  # and the formula above is that of I
