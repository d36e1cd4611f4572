"""Tests value_norm=anchor: anchors, z and v* are computed anew in float64 on plain transformers; what is too long is
not written; a stopped pilot goes on."""

from __future__ import annotations

import logging
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from afteredit.edit.ingredients import value_norm
from afteredit.edit.ingredients.value_search import optimise_values
from afteredit.edit.ingredients.value_settings import Distribute, KlAt, ValueNorm
from afteredit.edit.method import Given
from afteredit.edit.methods.alphaedit import AlphaEdit
from afteredit.edit.methods.memit import Memit
from afteredit.edit.methods.memit_seq import MemitSeq
from afteredit.edit.methods.rome import Rome, SecondMoment
from afteredit.edit.request import EditRequest
from afteredit.store.errors import BadInput
from afteredit.store.progress import kept_progress
from afteredit.tests.tiny.authors_batches import KEYS, LAMBDA, LAYERS, compare, prepared
from afteredit.tests.tiny.authors_steps import (
    FACTS,
    SETTINGS,
    STORED,
    authors_model,
    authors_offset,
    distance,
    rows_of,
    run,
)

QUICK = {"value_steps": 4}
ASKED = (("{} is", "new"), ("The end of {} was", "the sea"), ("We see {} and", "go"))
SUBJECTS = ("Ann", "Kim", "Chile", "Rome", "A tree", "Lake Erie", "Bob")
PILOTS = [EditRequest(id=f"{subject}, {target}", subject=subject, prompt=prompt, target_new=target)
          for subject in SUBJECTS for prompt, target in ASKED]  # fmt: skip


@pytest.fixture
def model(tokenizer, float64_throughout) -> SimpleNamespace:
    return authors_model("gpt2", tokenizer)  # test_remedies.py takes the other way round a weight can lie


def pilot_mean(model, module, layer, method) -> float:
    """The mean |v*| of the pilot edits under the bare prompt, without the largest one of 21."""
    norms = []
    for fact in PILOTS:
        _, delta_D = authors_offset(model, module, fact, method, ("{}",))
        v0_D = run(model, model.matrices[layer], *rows_of(model, fact, ("{}",))[0])[2]
        norms.append(float((v0_D + delta_D).norm()))
    return sum(sorted(norms)[:-1]) / 20


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path))


ANCHOR = {"value_norm": ValueNorm.anchor, "pilot_edits": 21}
BARE_ROME = {"second_moment": SecondMoment.identity, "contexts_short": 0, "contexts_long": 0}
CHEAP = {"contexts": 0, "tokens_per_key_dim": 10}


@pytest.mark.parametrize(
    ("cls", "distribute"),
    [(Memit, Distribute.boundary), (MemitSeq, Distribute.spread), (AlphaEdit, Distribute.boundary)],
)
def test_an_anchored_batch(model, cache, cls, distribute):
    """v* = v₀ + δ gets the length a, and z moves with it; nothing is dropped."""
    keys = {"ridge": 0.3, "threshold": 1e6} if cls is AlphaEdit else {"second_moment_weight": LAMBDA}
    method = cls(distribute=distribute, drop_above=None, **ANCHOR, **CHEAP, **keys, **KEYS | QUICK)
    made = method.prepare(model.lm, Given(0, lambda: PILOTS))
    aims = [0, 2] if distribute is Distribute.boundary else [2]
    anchor = {layer: pilot_mean(model, model.blocks[layer], layer, method) for layer in aims}
    constants = prepared(method)
    anchors = {f"anchor/{layer}": made.tensors[f"anchor/{layer}"] for layer in aims}
    assert {name: float(a) for name, a in anchors.items()} == pytest.approx(
        {f"anchor/{n}": a for n, a in anchor.items()}
    )
    constants = replace(constants, tensors={**constants.tensors, **anchors})
    for update in compare(model, method, constants, replace(method, value_norm=ValueNorm.none), anchor):
        assert update.diagnostics["dropped"] == 0


def test_rome_anchored(model, cache):
    """|v*| = a exactly, in its own direction."""
    method = Rome(layer=1, kl_at=KlAt.subject, second_moment=SecondMoment.identity, contexts_short=0, contexts_long=0,
                  **ANCHOR, **SETTINGS | QUICK)  # fmt: skip
    constants = method.prepare(model.lm, Given(0, lambda: PILOTS))
    anchor = pilot_mean(model, model.matrices[1], 1, method)
    for fact in FACTS:
        update = method.update(model.lm, [fact], constants, {})
        v0_D, delta_D = authors_offset(model, model.matrices[1], fact, method, ("{}",))
        k_F = run(model, model.matrices[1], *rows_of(model, fact, ("{}",))[0])[1]
        v_D = v0_D + delta_D
        if v_D.norm() > 2 * anchor:
            assert not update.changes and update.diagnostics["dropped"] == 1
            continue
        (change,) = update.changes.values()
        written_D = v0_D + change.dense() @ k_F
        assert (written_D - anchor * v_D / v_D.norm()).norm() < STORED * anchor
        assert update.diagnostics["value_norm"] == pytest.approx(float(v_D.norm()))
        assert update.diagnostics["anchor"] == pytest.approx(anchor)


@pytest.mark.parametrize("distribute", Distribute)
def test_a_value_that_is_too_long_is_not_written_counted_and_logged(model, caplog, distribute):
    """The batch is the one without that fact, whose keys stay out of the state as well."""
    method = MemitSeq(second_moment_weight=LAMBDA, value_norm=ValueNorm.anchor, distribute=distribute, **KEYS | QUICK)
    norms = [method_norm(model, method, fact) for fact in FACTS]
    long = max(range(3), key=lambda i: norms[i])
    anchor = (sorted(norms)[1] + norms[long]) / 2  # between the longest and the others
    method = replace(method, drop_above=1.0)
    anchors = {f"anchor/{layer}": torch.tensor(anchor if layer == first(distribute) else 1e9) for layer in LAYERS}
    constants = prepared(method)
    constants = replace(constants, tensors={**constants.tensors, **anchors})
    with caplog.at_level(logging.WARNING):
        update = method.update(model.lm, FACTS, constants, {})
    assert f"edit {FACTS[long].id} is not written" in caplog.text and caplog.text.count("is not written") == 1
    assert update.diagnostics["dropped"] == 1
    others = [fact for i, fact in enumerate(FACTS) if i != long]
    without = method.update(model.lm, others, constants, {})
    assert without.diagnostics["dropped"] == 0
    for name, change in update.changes.items():
        assert distance(change, without.changes[name].dense()) < STORED
    assert {name: keys.shape[1] for name, keys in update.adds.items()} == dict.fromkeys(without.adds, 2)
    none = method.update(model.lm, [FACTS[long]], constants, {})
    assert not none.changes and not none.adds and none.diagnostics["dropped"] == 1 and none.is_finite()


def first(distribute: Distribute) -> int:
    return 0 if distribute is Distribute.boundary else 2


def method_norm(model, method, fact) -> float:
    layer = first(method.distribute)
    _, delta_D = authors_offset(model, model.blocks[layer], fact, method)
    return float((run(model, model.matrices[layer], *rows_of(model, fact)[0])[2] + delta_D).norm())


def test_a_stopped_pilot_goes_on_after_its_last_group(make_lm, cache, monkeypatch):
    method = Rome(
        layer=1, contexts_short=0, contexts_long=0, second_moment=SecondMoment.identity, **ANCHOR, **SETTINGS | QUICK
    )
    lm, calls = make_lm("gpt2"), []
    whole = method.prepare(lm, Given(0, lambda: PILOTS)).tensors["anchor/1"]
    monkeypatch.setattr(kept_progress, "SECONDS", 0.0)
    monkeypatch.setattr(kept_progress, "SHARE", 0)
    monkeypatch.setattr(value_norm, "FORMAT", 99)  # made anew
    rows = value_norm.random.Random(0).sample(PILOTS, 21)

    def counted(lm, group, contexts, layer, settings):
        calls.append(len(group))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return optimise_values(lm, group, contexts, layer, settings)

    with pytest.raises(KeyboardInterrupt):
        value_norm.pilot_norms(lm, rows, 1, method, counted)
    norms, _ = value_norm.pilot_norms(lm, rows, 1, method, counted)
    assert calls == [8, 8, 5, 5]
    assert value_norm.trimmed_mean(norms) == float(whole)


def test_the_anchor_belongs_to_the_model_the_rows_and_the_search(make_lm, cache):
    method = Rome(
        layer=1, contexts_short=0, contexts_long=0, second_moment=SecondMoment.identity, **ANCHOR, **SETTINGS | QUICK
    )
    lm = make_lm("gpt2")
    digests = [
        other.prepare(lm, Given(0, lambda: PILOTS)).hashes["anchor/1"]
        for other in (method, replace(method, value_lr=0.2), replace(method, layer=2, stop_steps=0))
        if other.layer == 1
    ]
    digests.append(method.prepare(lm, Given(0, lambda: PILOTS[::-1])).hashes["anchor/1"])
    digests.append(replace(method, stop_steps=1).prepare(lm, Given(0, lambda: PILOTS)).hashes["anchor/1"])
    assert len(set(digests)) == len(digests)
    assert digests[0] == method.prepare(lm, Given(7, lambda: PILOTS)).hashes["anchor/1"]  # another seed of a sweep
    none = replace(method, value_norm=ValueNorm.none)
    assert not none.prepare(lm, Given(0, refuse)).hashes and "pilot" not in none.content(Given(0, refuse))
    assert method.content(Given(0, lambda: PILOTS))["pilot"] != method.content(Given(0, lambda: PILOTS[:5]))["pilot"]


def refuse() -> list[EditRequest]:
    raise AssertionError("the training split is read")


def test_a_norm_that_is_not_finite_makes_no_anchor():
    with pytest.raises(BadInput, match="not finite; lower method.value_lr"):
        value_norm.trimmed_mean([1.0, float("nan")])
    assert value_norm.trimmed_mean([3.0] * 19 + [100.0]) == 3.0
    assert value_norm.trimmed_mean([1.0, 3.0]) == 2.0


def test_too_few_rows_are_refused(make_lm):
    method = Rome(layer=1, contexts_short=0, contexts_long=0, value_norm=ValueNorm.anchor)
    with pytest.raises(BadInput, match="method.pilot_edits=100, but the training split holds 21 rows; set"):
        method.prepare(make_lm("gpt2"), Given(0, lambda: PILOTS))
