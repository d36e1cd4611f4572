"""Gives the tests of constraints real updates: rank one (ROME), rank 2 (MEMIT, two facts), one term per token (MEND),
dense (FT)."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from afteredit.edit.hypernetwork.network import Hypernetwork
from afteredit.edit.ingredients.least_squares import factors
from afteredit.edit.method import Prepared
from afteredit.edit.methods.ft import Ft
from afteredit.edit.methods.memit import Memit
from afteredit.edit.methods.mend import Mend
from afteredit.edit.methods.rome import Rome
from afteredit.edit.update import Dense, LowRank
from afteredit.tests.tiny.small_changes import draw


@pytest.fixture
def rome_update(make_lm, family, fact):
    """Returns a model, the name of one of its matrices, and ROME's update of that matrix."""
    lm = make_lm(family)
    moment_FF = torch.eye(lm.widths(1)[1])
    method = Rome(layer=1, value_steps=8, weight_decay=0.0)
    update = method.update(lm, [fact], Prepared(("", "It is known"), factors=factors({"second_moment": moment_FF})), {})
    return lm, lm.mlp_out_name(1), update


@pytest.fixture(params=["memit", "ft", "mend"])
def real(request, make_lm, fact, second_fact) -> SimpleNamespace:
    """Returns an update for two facts to several blocks of a model edited before; all matrices are float64 NumPy."""
    lm = make_lm("gpt2")  # stores its matrices transposed
    width, inner = lm.widths(0)
    blocks = range(lm.n_blocks)
    lm.weights.add({lm.mlp_out_name(i): Dense(0.002 * draw(width, inner, seed=i)) for i in blocks})
    network = Hypernetwork([(width, inner)] * 2, 6).start(0.5, 0)
    method, prepared = {
        "memit": (
            Memit(layers=[0, 1, 2], second_moment_weight=1.0, value_steps=6, weight_decay=0.0),
            Prepared(("", "It is known"), factors=factors({f"second_moment/{i}": torch.eye(inner) for i in blocks})),
        ),
        "ft": (Ft(layers=[1, 3], steps=6, learning_rate=0.01, max_change=0.02), Prepared()),
        "mend": (Mend(n_layers=2, rank=6), Prepared(tensors=network.state_dict())),
    }[request.param]
    update = method.update(lm, [fact, second_fact], prepared, {})
    assert len(update.changes) > 1
    kinds = {"memit": LowRank, "ft": Dense, "mend": LowRank}
    assert all(type(change) is kinds[request.param] for change in update.changes.values())

    def as_numpy(of) -> dict[str, np.ndarray]:
        return {name: of(name).double().numpy().copy() for name in update.changes}

    return SimpleNamespace(
        lm=lm, update=update, whole=as_numpy(lambda name: update.changes[name].dense()), W=as_numpy(lm.weights.W),
        W_base=as_numpy(lm.weights.W_base),
    )  # fmt: skip
