"""Tests ridge, distribute=boundary and stop_steps: each update is the remedy's equation, computed anew in float64, one
row at a time, on plain transformers (tests/tiny/authors_batches.py).  value_norm: test_value_norm.py beside it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from afteredit.edit.ingredients.value_settings import Distribute, KlAt
from afteredit.edit.method import Given, Prepared
from afteredit.edit.methods.alphaedit import AlphaEdit
from afteredit.edit.methods.memit import Memit, RidgeKind
from afteredit.edit.methods.memit_seq import MemitSeq
from afteredit.edit.methods.rome import Rome
from afteredit.edit.request import EditRequest
from afteredit.store.errors import BadInput
from afteredit.tests.tiny.authors_batches import KEYS, LAMBDA, MOMENTS, compare, prepared
from afteredit.tests.tiny.authors_steps import FACTS, SETTINGS, F, authors_model, authors_offset, rows_of, run


@pytest.fixture
def model(tokenizer, float64_throughout) -> SimpleNamespace:
    return authors_model("llama", tokenizer)  # test_value_norm.py takes the other way round a weight can lie


@pytest.mark.parametrize("kind", RidgeKind)
@pytest.mark.parametrize("cls", [Memit, MemitSeq])
def test_a_ridge_is_added_to_what_is_inverted(model, cls, kind):
    """Δ = R Kᵀ (λ C + ρ I + Σ K Kᵀ + K Kᵀ)⁻¹, ρ absolute or in mean eigenvalues of λ C."""
    method = cls(second_moment_weight=LAMBDA, ridge=0.3, ridge_kind=kind, **KEYS)
    compare(model, method, prepared(method), other=replace(method, ridge=0.0))


def test_memit_seq_with_a_ridge_is_the_one_solution_near_the_first_weights(model):
    """Three batches at one block add up to the Δ of least λ E|Δ k|² + ρ |Δ|² + Σ |Δ k − r|²: RLSEdit's objective."""
    method = MemitSeq(second_moment_weight=LAMBDA, ridge=0.4, **{**KEYS, "layers": [1]})
    lm, constants = model.lm, replace(prepared(method), contexts=("",))
    found = method.find_values(lm, FACTS, constants, 8)
    constants = replace(constants, values=found)
    bare = [rows_of(model, fact)[0] for fact in FACTS]
    K_FE = torch.stack([run(model, model.matrices[1], *row)[1] for row in bare], 1)
    R_DE = torch.stack([found[fact.id].z_D - run(model, model.blocks[1], *row)[2]
                        for fact, row in zip(FACTS, bare, strict=True)], 1)  # fmt: skip
    A_FF = LAMBDA * MOMENTS[1] + 0.4 * torch.eye(F, dtype=torch.float64)
    once_DF = torch.linalg.solve(A_FF + K_FE @ K_FE.T, K_FE @ R_DE.T).T
    total_DF, state = torch.zeros_like(once_DF), {}
    for fact in FACTS:
        update = method.update(lm, [fact], constants, state)
        state = method.extend(state, update, constants)
        lm.weights.add(update.changes)
        total_DF += update.changes[lm.mlp_out_name(1)].dense()
    assert float((total_DF - once_DF).norm() / once_DF.norm()) < 1e-5


def test_prepare_puts_the_ridge_into_memits_factors(make_lm, tmp_path, monkeypatch):
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path))
    method = Memit(layers=[0, 1], second_moment_weight=4.0, contexts=0, ridge=0.2)
    lm = make_lm("gpt2")
    products = []
    for ridged in (method, replace(method, ridge=0.0), replace(method, ridge_kind=RidgeKind.relative)):
        constants = ridged.prepare(lm, Given(0, list))
        products.append({name: factor_FF @ factor_FF.T for name, factor_FF in constants.factors.items()})
    absolute, without, relative = products
    for name, C_FF in without.items():
        assert_close(absolute[name] - C_FF, 0.2 / 4 * torch.eye(F, dtype=torch.float64), rtol=0, atol=1e-10)
        assert_close(relative[name] - C_FF, 0.2 * C_FF.diagonal().mean() * torch.eye(F).double(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("cls", [Memit, MemitSeq, AlphaEdit])
def test_boundary_writes_the_first_and_the_last_block_each_to_its_own_value(model, cls):
    keys = {"ridge": 0.3} if cls is AlphaEdit else {"second_moment_weight": LAMBDA}
    method = cls(distribute=Distribute.boundary, **keys, **KEYS)
    assert method.edited(model.lm) == [model.lm.mlp_out_name(layer) for layer in (0, 2)]
    compare(model, method, prepared(method), other=replace(method, distribute=Distribute.spread))


SAY = {"value_steps": 25, "value_lr": 0.5, "max_offset": 20.0, "weight_decay": 0.0, "kl_weight": 0.0, "stop_loss": 0.0}
SAYABLE = [  # the first has one token, and is reached: its subject ends the prompt
    EditRequest(id="a", subject="Peru", prompt="The land of {}", target_new="the"),
    EditRequest(id="b", subject="Peru", prompt="The land of {}", target_new="old"),
    EditRequest(id="c", subject="China", prompt="We see {}", target_new="new old"),
]


@pytest.mark.parametrize("stop_steps", [1, 3])
def test_the_search_ends_once_every_token_is_the_likeliest_often_enough(model, stop_steps):
    """Under all contexts and the bare prompt; together as alone."""
    method = Memit(second_moment_weight=LAMBDA, stop_steps=stop_steps, **KEYS | SAY)
    together = method.find_values(model.lm, SAYABLE, prepared(method), 8)
    for fact in SAYABLE:
        h_D, delta_D = authors_offset(model, model.blocks[2], fact, method)
        alone = method.find_values(model.lm, [fact], prepared(method), 1)[fact.id]
        for found in (together[fact.id], alone):
            assert float((found.z_D - h_D - delta_D).norm() / delta_D.norm()) < 1e-6
        assert together[fact.id].diagnostics == pytest.approx(alone.diagnostics, rel=1e-6, abs=1e-9)
    steps = [target.diagnostics["steps"] for target in together.values()]
    assert 0 < steps[0] < 24 == steps[1]
    never = replace(method, stop_steps=0).find_values(model.lm, SAYABLE[:1], prepared(method), 8)
    assert never["a"].diagnostics["steps"] == 24


def test_rome_stops_as_early(model):
    method = Rome(layer=1, kl_at=KlAt.subject, stop_steps=2, **SETTINGS | SAY)
    (value,) = method.find_values(model.lm, SAYABLE[:1], Prepared(("",)), 8).values()
    _, delta_D = authors_offset(model, model.matrices[1], SAYABLE[0], method, ("{}",))
    assert float((value.offset_D - delta_D).norm() / delta_D.norm()) < 1e-6
    assert 0 < value.diagnostics["steps"] < 24


def test_nonsense_is_refused_by_name():
    for cls, keys, words in (
        (Rome, {"stop_steps": -1}, "method.stop_steps=-1"), (Rome, {"pilot_edits": 0}, "method.pilot_edits=0"),
        (AlphaEdit, {"drop_above": 0.0}, "method.drop_above=0.0"), (Memit, {"drop_above": float("nan")}, "above=nan"),
        (Memit, {"ridge": -1.0}, "method.ridge=-1.0"), (MemitSeq, {"ridge": float("inf")}, "method.ridge=inf"),
        (Memit, {"layers": [3], "distribute": Distribute.boundary}, r"method.distribute=boundary .*layers.* \[3\]"),
        (AlphaEdit, {"layers": [3], "distribute": Distribute.boundary}, "method.distribute=boundary"),
    ):  # fmt: skip
        with pytest.raises(BadInput, match=words):
            cls(**keys)
