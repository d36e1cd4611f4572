"""Tests that W is the module's matrix however it is stored, and that a change affects only the matrices it names."""

import pytest
import torch
from torch.testing import assert_close

from afteredit.edit.update import Dense, LowRank, Update
from afteredit.model.lm import LM
from afteredit.model.weights import Weights
from afteredit.tests.tiny.models import random_model


def low_rank(lm: LM, layer: int = 1, seed: int = 0, scale: float = 0.1) -> Update:
    D, F = lm.widths(layer)
    generator = torch.Generator().manual_seed(seed)
    left_Dr, right_Fr = (scale * torch.randn(n, 2, generator=generator) for n in (D, F))
    return Update({lm.mlp_out_name(layer): LowRank(left_Dr, right_Fr)})


def weights(lm: LM) -> dict[str, torch.Tensor]:
    return {name: parameter.clone() for name, parameter in lm.model.named_parameters()}


def differing(lm: LM, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, parameter in lm.model.named_parameters() if not torch.equal(parameter, before[name])}


@pytest.fixture
def square_gpt2(tokenizer) -> LM:
    """F == D: which way the matrix is stored cannot be told from its shape."""
    model = random_model("gpt2", len(tokenizer), n_embd=32, n_inner=32, n_layer=2, n_head=4)
    torch.nn.init.normal_(model.transformer.h[1].mlp.c_proj.bias)
    return LM(model, tokenizer)


def assert_W_is_the_module(lm: LM) -> None:
    D, F = lm.widths(1)
    module, W_DF = lm.mlp_out(1), lm.weights.W(lm.mlp_out_name(1))
    key_F = torch.randn(F, generator=torch.Generator().manual_seed(0))
    bias_D = 0 if module.bias is None else module.bias
    assert W_DF.shape == (D, F)
    assert_close(W_DF @ key_F + bias_D, module(key_F[None])[0], rtol=1e-5, atol=1e-6)


def test_W_times_key_plus_bias_is_the_module(make_lm, family):
    lm = make_lm(family)
    assert lm.widths(1) == (32, 48)
    assert_W_is_the_module(lm)


def test_a_square_matrix_is_not_taken_for_its_transpose(square_gpt2):
    assert square_gpt2.widths(1) == (32, 32)
    assert_W_is_the_module(square_gpt2)
    square_gpt2.weights.add(low_rank(square_gpt2).changes)
    assert_W_is_the_module(square_gpt2)


def test_add_adds_left_times_right_to_that_matrix_alone(make_lm, family):
    lm = make_lm(family)
    before, update = weights(lm), low_rank(lm)
    ((name, change),) = update.changes.items()
    W_DF = lm.weights.W(name).clone()
    lm.weights.add(update.changes)
    assert_close(lm.weights.W(name), W_DF + change.left_Dr @ change.right_Fr.T, rtol=1e-6, atol=1e-6)
    assert differing(lm, before) == {name}
    assert torch.equal(lm.weights.W_base(name), W_DF)
    assert_W_is_the_module(lm)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_restore_and_put_back_are_bit_identical(make_lm, family, dtype):
    lm = make_lm(family, dtype=dtype)
    unedited = weights(lm)
    for seed, layer in enumerate((1, 2, 1)):
        lm.weights.add(low_rank(lm, layer, seed).changes)
    edited, copies, digest = weights(lm), lm.weights.copies(), lm.weights.sha256()
    lm.weights.restore()
    assert not differing(lm, unedited)
    lm.weights.put_back(copies)
    assert not differing(lm, edited)
    assert lm.weights.sha256() == digest
    lm.weights.restore()
    assert not differing(lm, unedited)


def test_the_weights_hash_changes_on_add_and_returns_on_restore(make_lm, family):
    lm = make_lm(family)
    lm.weights.add(low_rank(lm).changes)
    lm.weights.restore()
    unedited = lm.weights.sha256()
    lm.weights.add(low_rank(lm).changes)
    edited = lm.weights.sha256()
    lm.weights.add(low_rank(lm, seed=1).changes)
    assert len({unedited, edited, lm.weights.sha256()}) == 3
    lm.weights.restore()
    assert lm.weights.sha256() == unedited
    lm.weights.add(low_rank(lm).changes)
    assert lm.weights.sha256() == edited


def test_tiny_updates_add_up_in_a_bfloat16_model(make_lm, family):
    """Each alone is a twentieth of bfloat16's half unit in the last place, so without a master none would be seen."""
    lm = make_lm(family, dtype=torch.bfloat16)
    name = lm.mlp_out_name(1)
    W_DF, before = lm.weights.W(name).clone(), weights(lm)[name]
    for _ in range(20):
        lm.weights.add({name: Dense(1e-4 * W_DF)})
    assert_close(lm.weights.W(name), W_DF * 1.002, rtol=5e-6, atol=0)
    for _ in range(80):
        lm.weights.add({name: Dense(1e-4 * W_DF)})
    now = lm.model.get_parameter(name)
    assert torch.equal(now, (lm.weights.W(name).T if family == "gpt2" else lm.weights.W(name)).bfloat16())
    assert bool((now != before).all())


def test_a_model_is_unedited_until_a_bit_differs(make_lm):
    lm = make_lm("llama")
    lm.weights.keep_base(map(lm.mlp_out_name, [1, 2]))
    assert lm.weights.is_unedited()
    lm.weights.add(low_rank(lm, 2, scale=1e-4).changes)
    assert not lm.weights.is_unedited()
    lm.weights.restore()
    assert lm.weights.is_unedited()


def test_no_copy_of_a_matrix_is_made_where_its_base_is_known(monkeypatch):
    """Also shows that weights need no LM."""
    weights = Weights(torch.nn.ModuleDict({"out": torch.nn.Linear(3, 2)}).bfloat16().requires_grad_(False))
    base_DF = weights.W_base("out.weight")
    weights.add({"out.weight": Dense(torch.ones(2, 3))})
    monkeypatch.setattr(weights, "W", None)
    assert torch.equal(weights.W_base("out.weight"), base_DF)


def test_what_is_added_inside_undone_leaves_no_trace(make_lm, family):
    lm = make_lm(family, dtype=torch.bfloat16)
    before, name = weights(lm), lm.mlp_out_name(1)
    with pytest.raises(KeyboardInterrupt), lm.weights.undone([name]):
        lm.weights.add(low_rank(lm).changes)
        assert differing(lm, before) == {name}
        raise KeyboardInterrupt
    assert not differing(lm, before)
    assert not lm.weights.base and torch.equal(lm.weights.W(name), lm.weights.W_base(name))
