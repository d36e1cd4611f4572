"""Two batches of MEMIT and its heirs with their remedies, by the steps of authors_steps.py."""

from __future__ import annotations

import torch

from afteredit.edit.ingredients.least_squares import factors
from afteredit.edit.ingredients.value_settings import Distribute, KlAt
from afteredit.edit.method import Prepared
from afteredit.edit.methods.alphaedit import AlphaEdit
from afteredit.edit.methods.memit import Memit, RidgeKind
from afteredit.edit.methods.memit_seq import MemitSeq
from afteredit.tests.tiny.authors_steps import (
    CONTEXTS,
    FACTS,
    SETTINGS,
    STORED,
    F,
    authors_offset,
    distance,
    keys_of,
    rows_of,
    run,
    spd,
)  # fmt: skip

LAYERS = [0, 1, 2]
MOMENTS = {layer: spd(layer) for layer in LAYERS}
LAMBDA = 0.5
KEYS = {"layers": LAYERS, "kl_at": KlAt.subject, **SETTINGS}


def projection(layer: int) -> torch.Tensor:
    """U (F, r), orthonormal."""
    return torch.linalg.qr(spd(10 + layer)).Q[:, :30]


def prepared(method) -> Prepared:
    moments = {f"second_moment/{layer}": C_FF for layer, C_FF in MOMENTS.items()}
    if isinstance(method, MemitSeq):
        return Prepared(CONTEXTS, moments)
    if isinstance(method, Memit):
        return Prepared(CONTEXTS, factors=factors({name: method.with_ridge(C_FF) for name, C_FF in moments.items()}))
    spaces = {f"null_space/{layer}": projection(layer) for layer in LAYERS}
    return Prepared(CONTEXTS, spaces | {f"energy/{layer}": torch.tensor(0.1) for layer in LAYERS})


def solved(method, layer, K_FE, resid_DE, past_FF) -> torch.Tensor:
    """Δ (D, F) of the method's equation."""
    if isinstance(method, AlphaEdit):
        P_FF = projection(layer) @ projection(layer).T
        left_FF = P_FF @ (K_FE @ K_FE.T + past_FF) + method.ridge * torch.eye(F, dtype=torch.float64)
        return torch.linalg.solve(left_FF, P_FF @ K_FE @ resid_DE.T).T
    A_FF = LAMBDA * MOMENTS[layer]
    unit = torch.linalg.eigvalsh(A_FF).mean() if method.ridge_kind is RidgeKind.relative else 1.0
    A_FF = A_FF + method.ridge * unit * torch.eye(F, dtype=torch.float64) + K_FE @ K_FE.T
    return resid_DE @ torch.linalg.solve(A_FF + (past_FF if isinstance(method, MemitSeq) else 0), K_FE).T


def targets(model, layer, batch, method, anchor) -> list[torch.Tensor | None]:
    """Each fact's z after a block; None for one that is not written."""
    zs = []
    for fact in batch:
        h_D, delta_D = authors_offset(model, model.blocks[layer], fact, method)
        v_D = run(model, model.matrices[layer], *rows_of(model, fact)[0])[2] + delta_D
        if anchor is None:
            zs.append(h_D + delta_D)
        elif method.drop_above is not None and v_D.norm() > method.drop_above * anchor[layer]:
            zs.append(None)
        else:
            zs.append(h_D + delta_D - v_D + anchor[layer] * v_D / v_D.norm())
    return zs


def expected_batch(model, batch, method, past, anchor=None) -> dict[int, torch.Tensor]:
    """The changes of a batch, left in `plain`; `past` gains the batch's keys."""
    boundary = method.distribute is Distribute.boundary
    layers = [LAYERS[0], LAYERS[-1]] if boundary else LAYERS
    changes: dict[int, torch.Tensor] = {}
    for i, layer in enumerate(layers):
        aim = layer if boundary else layers[-1]
        if i == 0 or boundary:
            found = targets(model, aim, batch, method, anchor)
            batch = [fact for fact, z_D in zip(batch, found, strict=True) if z_D is not None]
            zs = [z_D for z_D in found if z_D is not None]
            if not batch:
                return changes
        keys = [keys_of(model, layer, fact) for fact in batch]
        K_FE = torch.stack([(keys_CF[0] + keys_CF[1:].mean(0)) / 2 for keys_CF in keys], 1)
        now = [run(model, model.blocks[aim], *rows_of(model, fact)[0])[2] for fact in batch]
        missing_DE = torch.stack([z_D - now_D for z_D, now_D in zip(zs, now, strict=True)], 1)
        changes[layer] = solved(method, layer, K_FE, missing_DE / (1 if boundary else len(layers) - i), past[layer])
        model.matrices[layer].weight.data += changes[layer].T if model.transposed else changes[layer]
        past[layer] = past[layer] + K_FE @ K_FE.T
    return changes


def compare(model, method, constants, other=None, anchor=None) -> list:
    """Holds two batches against `expected_batch`, and that those of `other` are different.  Returns the updates."""
    past = {layer: torch.zeros(F, F, dtype=torch.float64) for layer in LAYERS}
    state, updates = {}, []
    for batch in (FACTS[:2], FACTS[2:]):
        updates.append(method.update(model.lm, batch, constants, state))
        expected = expected_batch(model, batch, method, past, anchor)
        names = {layer: model.lm.mlp_out_name(layer) for layer in expected}
        assert set(updates[-1].changes) == set(names.values())
        for layer, expected_DF in expected.items():
            assert distance(updates[-1].changes[names[layer]], expected_DF) < 10 * STORED
        if other is not None:
            without = other.update(model.lm, batch, prepared(other), state)
            assert distance(without.changes[model.lm.mlp_out_name(2)], expected[2]) > 1e-3  # the key decides something
        state = method.extend(state, updates[-1], constants)
        model.lm.weights.add(updates[-1].changes)
    return updates
