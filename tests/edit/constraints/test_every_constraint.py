"""Tests what holds for every constraint in conf/constraint: its file builds it, and replays and real updates work."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch.testing import assert_close

from afteredit.edit.method import Prepared
from afteredit.edit.methods.kn import Kn
from afteredit.edit.update import Dense, Update, load_update
from afteredit.launch.command_line import compose
from afteredit.store.errors import BadInput
from afteredit.tests.tiny.small_changes import NAME, D, F, draw, low_rank

FILES = sorted((Path(__file__).resolve().parents[3] / "conf" / "constraint").glob("*.yaml"))


@pytest.fixture(scope="module", params=FILES, ids=lambda path: path.stem)
def file(request) -> Path:
    return request.param


@pytest.fixture(scope="module")
def constraint(file):
    """Returns the constraint with the values of its file."""
    return compose([f"constraint={file.stem}"]).constraint


# ---- its file


def test_its_file_gives_every_field_its_value(file, constraint):
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    for base in values.pop("defaults", []):  # a file that alters another
        values = yaml.safe_load(file.with_stem(base).read_text(encoding="utf-8")) | values
    assert values.pop("_target_") == f"{type(constraint).__module__}.{type(constraint).__name__}"
    assert set(values) == {field.name for field in dataclasses.fields(constraint)}
    given = {key: value for key, value in values.items() if "${" not in str(value)}
    assert given == {key: getattr(constraint, key) for key in given}


def test_a_number_that_makes_no_sense_is_refused_by_its_key(constraint):
    for field in dataclasses.fields(constraint):
        if isinstance(getattr(constraint, field.name), float):
            with pytest.raises(BadInput, match=rf"^constraint\.{field.name}=nan; it must be"):
                replace(constraint, **{field.name: math.nan})


# ---- small updates


def test_what_else_an_update_holds_stays_and_nothing_is_mutated(constraint):
    change, W_DF = low_rank(rank=5), draw(D, F, seed=7)
    before = [t.clone() for t in (change.left_Dr, change.right_Fr, W_DF)]
    update = Update({NAME: change}, {"keys": torch.ones(2)}, {"loss": 1.0})
    result = constraint.constrain(update, {NAME: W_DF}.get, {NAME: W_DF}.get)
    assert result.adds is update.adds
    assert result.diagnostics == {"loss": 1.0}
    assert list(result.changes) == [NAME]
    assert all(torch.equal(a, b) for a, b in zip(before, (change.left_Dr, change.right_Fr, W_DF), strict=True))


def test_a_view_is_a_matrix_of_the_same_kind_and_mutates_nothing(constraint):
    W_base_DF = draw(D, F, seed=7)
    W_DF = W_base_DF + 30 * draw(D, F, seed=8)
    before = [W_base_DF.clone(), W_DF.clone()]
    view_DF = constraint.view(W_base_DF, W_DF)
    assert view_DF.shape == W_DF.shape and view_DF.dtype == W_DF.dtype
    assert all(torch.equal(a, b) for a, b in zip(before, (W_base_DF, W_DF), strict=True))


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


# ---- real updates


def test_it_composes_with_a_real_update_which_can_be_taken_back(constraint, rome_update):
    lm, name, update = rome_update
    W_before_DF = lm.weights.W(name).clone()
    update = constraint.constrain(update, lm.weights.W, lm.weights.W_base)
    lm.weights.add(update.changes)
    moved_DF = lm.weights.W(name).double() - W_before_DF.double()
    assert moved_DF.any()
    assert_close(moved_DF, update.changes[name].dense(), rtol=0, atol=1e-6 * float(W_before_DF.abs().max()))
    lm.weights.restore()
    assert torch.equal(lm.weights.W(name), W_before_DF)


def test_an_update_that_changes_nothing_stays_one(constraint, make_lm, fact, tmp_path):
    """KN makes such updates if no neuron is coarse."""
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
