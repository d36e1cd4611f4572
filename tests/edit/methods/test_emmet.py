"""Tests EMMET against the authors' formula by NumPy, that a batch is an equality, and that damped it is MEMIT."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from afteredit.edit.ingredients.least_squares import factors
from afteredit.edit.ingredients.subject_keys import subject_keys, subject_streams
from afteredit.edit.ingredients.value_search import optimise_streams
from afteredit.edit.method import Prepared
from afteredit.edit.methods.emmet import Emmet
from afteredit.edit.methods.memit import Memit
from afteredit.store.errors import BadInput, NoEdit

CONTEXTS = ("", "It is known")
LAYERS = [0, 1]
KEYS = {"layers": LAYERS, "value_steps": 6, "weight_decay": 0.0}


def prepared(lm) -> Prepared:
    moments = {}
    for layer in LAYERS:
        sample_NF = torch.randn(200, lm.widths(layer)[1], generator=torch.Generator().manual_seed(layer)).double()
        moments[f"second_moment/{layer}"] = sample_NF.T @ sample_NF / 200
    return Prepared(CONTEXTS, moments, factors=factors(moments))


def authors_change(R: np.ndarray, K: np.ndarray, C: np.ndarray, weight: float, damping: float) -> np.ndarray:
    """Returns what emmet_main.py adds to W: the inverse of w C, and d on the diagonal for several facts."""
    C_inv = np.linalg.inv(weight * C)
    D = K.T @ C_inv @ K
    if len(D) > 1:
        D = D + damping * np.eye(len(D))
    return R @ np.linalg.inv(D) @ K.T @ C_inv


@pytest.mark.parametrize("damping", [0.1, 0.0])
@pytest.mark.parametrize("size", [1, 2])
def test_every_blocks_change_is_that_of_the_authors_code(make_lm, family, fact, second_fact, damping, size):
    lm, requests = make_lm(family), [fact, second_fact][:size]
    constants, emmet = prepared(lm), Emmet(**KEYS, second_moment_weight=5.0, damping=damping)
    update = emmet.update(lm, requests, constants, {})
    z_DE = torch.stack([optimise_streams(lm, [r], CONTEXTS, LAYERS[-1], emmet)[0].z_D for r in requests], 1).double()
    for i, layer in enumerate(LAYERS):
        change = update.changes[lm.mlp_out_name(layer)]
        K = subject_keys(lm, requests, CONTEXTS, layer).double().numpy()
        R = (z_DE - subject_streams(lm, requests, LAYERS[-1]).double()).numpy() / (len(LAYERS) - i)
        expected = authors_change(R, K, constants.tensors[f"second_moment/{layer}"].numpy(), 5.0, damping)
        assert np.linalg.norm(change.dense().numpy() - expected) < 1e-4 * np.linalg.norm(expected)
        if damping == 0 or size == 1:
            assert np.linalg.norm(expected @ K - R) < 1e-8 * np.linalg.norm(R)
            assert np.linalg.norm(change.dense().numpy() @ K - R) < 1e-4 * np.linalg.norm(R)
        lm.weights.add({lm.mlp_out_name(layer): change})


def test_a_damped_batch_is_memits_with_the_product_as_its_weight(make_lm, fact, second_fact):
    lm = make_lm("llama")
    constants, requests = prepared(lm), [fact, second_fact]
    ours = Emmet(**KEYS, second_moment_weight=5.0, damping=0.1).update(lm, requests, constants, {})
    memits = Memit(**KEYS, second_moment_weight=0.5).update(lm, requests, constants, {})
    alone = Emmet(**KEYS, second_moment_weight=5.0, damping=0.1).update(lm, [fact], constants, {})
    for name, change in memits.changes.items():
        assert_close(ours.changes[name].dense(), change.dense(), rtol=1e-6, atol=1e-9)
    assert not ours.adds and set(alone.changes) == set(ours.changes)


def test_facts_with_one_key_have_no_equality_and_are_refused_by_name(make_lm, fact):
    """Two answers at one key cannot both be reached; on a damped system they can be averaged."""
    lm = make_lm("llama")
    twice = [fact, replace(fact, id="f9", prompt=f"{fact.prompt} known as", relation="other")]
    bare = replace(prepared(lm), contexts=("",))
    with pytest.raises(NoEdit, match=r"method\.damping"):
        Emmet(**KEYS, damping=0.0).update(lm, twice, bare, {})
    assert Emmet(**KEYS, damping=0.1).update(lm, twice, bare, {}).is_finite()


@pytest.mark.parametrize(("key", "value"), [("damping", -0.1), ("damping", float("nan")), ("second_moment_weight", 0)])
def test_a_number_that_makes_no_sense_is_refused_by_its_key(key, value):
    with pytest.raises(BadInput, match=rf"^method\.{key}={value}; it must be"):
        Emmet(**{key: value})
