"""What holds for every constraint: configs, bits of a replay, real updates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from afteredit.edit.constraint import Unconstrained
from afteredit.edit.constraints.norm_cap import NormCap
from afteredit.edit.constraints.pca import Pca
from afteredit.edit.constraints.prune import Prune
from afteredit.edit.constraints.random_entries import RandomEntries
from afteredit.edit.constraints.rect import Rect
from afteredit.edit.ingredients.least_squares import factors
from afteredit.edit.method import Prepared
from afteredit.edit.methods.kn import Kn
from afteredit.edit.methods.rome import Rome
from afteredit.edit.update import Dense, LowRank, Update, load_update
from afteredit.launch.command_line import compose
from afteredit.store.errors import BadInput
from afteredit.tests.tiny.small_changes import NAME, D, F, draw, low_rank

ALL = [Rect(), RandomEntries(), Pca(), NormCap(growth=0.001), Prune()]
named = pytest.mark.parametrize("constraint", ALL, ids=lambda c: type(c).__name__)


@named
def test_what_else_an_update_holds_stays_and_nothing_is_mutated(constraint):
    change, W_DF = low_rank(rank=5), draw(D, F, seed=7)
    before = [t.clone() for t in (change.left_Dr, change.right_Fr, W_DF)]
    update = Update({NAME: change}, {"keys": torch.ones(2)}, {"loss": 1.0})
    result = constraint.constrain(update, {NAME: W_DF}.get, {NAME: W_DF}.get)
    assert result.adds is update.adds
    assert result.diagnostics == {"loss": 1.0}
    assert list(result.changes) == [NAME]
    assert all(torch.equal(a, b) for a, b in zip(before, (change.left_Dr, change.right_Fr, W_DF), strict=True))


@named
@pytest.mark.parametrize("change", [low_rank(rank=5), Dense(draw(D, F))], ids=["low rank", "dense"])
def test_replay_gives_the_same_bits(constraint, change, tmp_path):
    """The journal stores the update as the method gave it; its matrices may come back in another order."""
    other = low_rank(rank=4, seed=3)
    update = Update({"b": change, "a": other}, {"keys": draw(3)}, {"loss": 1.0})
    save_file(update.flat(), tmp_path / "update.safetensors")
    stored = load_update(tmp_path / "update.safetensors")
    stored = replace(stored, changes=dict(sorted(stored.changes.items())))
    weights = {"a": draw(D, F, seed=7), "b": draw(D, F, seed=8)}
    now, again = (constraint.constrain(u, weights.get, weights.get) for u in (update, stored))
    for name in weights:
        assert torch.equal(now.changes[name].dense(), again.changes[name].dense())


BAD = [
    *(
        (cls, {"keep": keep}, "constraint.keep")
        for cls in (Rect, RandomEntries, Pca)
        for keep in (0, -0.1, 1.01, np.nan)
    ),
    *((Rect, {"eps": eps}, "constraint.eps") for eps in (0, -1e-8, np.inf, np.nan)),
    *((NormCap, {"growth": growth}, "constraint.growth") for growth in (-0.1, np.inf, np.nan)),
    *((Prune, {"base": base}, "constraint.base") for base in (1, 0.5, -2, np.inf, np.nan)),
]


@pytest.mark.parametrize(("cls", "values", "key"), BAD, ids=lambda v: getattr(v, "__name__", str(v)))
def test_a_value_that_makes_no_sense_is_refused_by_its_key(cls, values, key):
    with pytest.raises(BadInput, match=f"^{key}={next(iter(values.values()))}; it must be"):
        cls(**values)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["constraint=none"], Unconstrained()),
        (["constraint=rect", "constraint.keep=0.2"], Rect(keep=0.2, eps=1e-8)),
        (["constraint=random", "seed=3"], RandomEntries(keep=0.4, seed=3)),
        (["constraint=pca"], Pca(keep=0.4)),
        (["constraint=norm", "constraint.growth=0.5"], NormCap(growth=0.5)),
        (["constraint=prune"], Prune(base=2.718281828459045)),
        (["constraint=prune", "constraint.base=1.2"], Prune(base=1.2)),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_every_file_builds_and_the_command_line_wins(overrides, expected):
    assert compose(overrides).constraint == expected


def test_a_bad_value_on_the_command_line_is_refused_before_anything_is_loaded():
    with pytest.raises(BadInput, match=r"^constraint\.keep=40"):
        compose(["constraint=rect", "constraint.keep=40"])


@pytest.fixture
def rome_update(make_lm, family, fact):
    lm = make_lm(family)
    moment_FF = torch.eye(lm.widths(1)[1])
    method = Rome(layer=1, value_steps=8, weight_decay=0.0)
    update = method.update(lm, [fact], Prepared(("", "It is known"), factors=factors({"second_moment": moment_FF})), {})
    return lm, lm.mlp_out_name(1), update


@pytest.mark.parametrize(
    "constraint", [Rect(), RandomEntries(), Pca(), NormCap(growth=1e-4)], ids=lambda c: type(c).__name__
)
def test_constraints_compose_with_a_real_update(rome_update, constraint):
    lm, name, update = rome_update
    W_before_DF = lm.weights.W(name).clone()
    whole_DF = update.changes[name].dense()
    update = constraint.constrain(update, lm.weights.W, lm.weights.W_base)
    lm.weights.add(update.changes)
    moved_DF = lm.weights.W(name).double() - W_before_DF.double()
    assert_close(moved_DF, update.changes[name].dense(), rtol=0, atol=1e-6 * float(W_before_DF.abs().max()))
    if isinstance(constraint, Rect | RandomEntries):
        untouched_DF = (update.changes[name].dense() == 0) & (whole_DF != 0)
        assert int(untouched_DF.sum()) == whole_DF.numel() - round(0.4 * whole_DF.numel())
        assert torch.equal(lm.weights.W(name)[untouched_DF], W_before_DF[untouched_DF])
        if isinstance(constraint, Rect):  # whatever is kept moves its weight by more, in relation to it, than the rest
            relative_DF = whole_DF.abs() / (W_before_DF.double().abs() + 1e-8)
            assert relative_DF[~untouched_DF].min() >= relative_DF[untouched_DF].max()
    elif isinstance(constraint, Pca):
        assert torch.equal(update.changes[name].dense(), whole_DF)
    else:
        assert float(lm.weights.W(name).double().norm()) == pytest.approx(
            1.0001 * float(W_before_DF.double().norm()), rel=1e-7
        )
    lm.weights.restore()
    assert torch.equal(lm.weights.W(name), W_before_DF)


def test_the_view_of_a_real_edit_can_stand_in_the_model_and_be_taken_out_again(rome_update):
    lm, name, update = rome_update
    (change,) = update.changes.values()
    lm.weights.add({name: LowRank(1000 * change.left_Dr, change.right_Fr)})
    raw = lm.weights.copies()
    view_DF = Prune().view(lm.weights.W_base(name), lm.weights.W(name))
    assert torch.equal(lm.weights.W(name), raw[name])
    (S_raw, S_view) = (
        np.linalg.svd((W - lm.weights.W_base(name)).double().numpy(), compute_uv=False) for W in (raw[name], view_DF)
    )
    m = np.linalg.norm(lm.weights.W_base(name).double().numpy(), ord=2)
    assert S_raw[0] > m
    assert S_view[0] == pytest.approx(m + np.log(S_raw[0] / m), rel=1e-5)
    lm.weights.put_back({name: view_DF})
    assert torch.equal(lm.weights.W(name), view_DF)
    lm.weights.put_back(raw)
    assert torch.equal(lm.weights.W(name), raw[name])


@named
def test_an_update_that_changes_nothing_stays_one(constraint, make_lm, fact, tmp_path):
    """As KN's, where no neuron is coarse."""
    lm = make_lm("llama")
    update = Kn(steps=2, threshold=1.0).update(lm, [fact], Prepared(), {})
    assert update.changes == {} and update.diagnostics["n_neurons"] == 0
    before = {name: parameter.clone() for name, parameter in lm.model.named_parameters()}
    save_file(update.flat(), tmp_path / "update.safetensors")
    for given in (update, load_update(tmp_path / "update.safetensors")):
        result = constraint.constrain(given, lm.weights.W, lm.weights.W_base)
        assert result.changes == {}
        assert result.diagnostics == given.diagnostics
        lm.weights.add(result.changes)
    assert not lm.weights.base
    assert all(torch.equal(parameter, before[name]) for name, parameter in lm.model.named_parameters())
