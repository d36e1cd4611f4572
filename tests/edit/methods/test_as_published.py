"""With `kl_at=subject`, each method's update is what its authors' code computes: ROME as Gu et al. run it and as Meng
et al. do, MEMIT, MEMIT_seq, AlphaEdit and EMMET.

Their steps are written out in float64, one row at a time, on plain transformers (tests/tiny/authors_steps.py).  Nothing
of the program is used but the update that is compared.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from afteredit.edit.ingredients.context_prefixes import OPENINGS, sample_contexts
from afteredit.edit.ingredients.least_squares import factors
from afteredit.edit.ingredients.value_settings import KlAt
from afteredit.edit.method import Prepared
from afteredit.edit.methods.alphaedit import AlphaEdit
from afteredit.edit.methods.emmet import Emmet
from afteredit.edit.methods.memit import Memit
from afteredit.edit.methods.memit_seq import MemitSeq
from afteredit.edit.methods.rome import Keys, Rome, SecondMoment
from afteredit.tests.tiny.authors_steps import (
    CONTEXTS,
    FACTS,
    SETTINGS,
    STORED,
    F,
    authors_model,
    authors_offset,
    distance,
    ids_of,
    keys_of,
    rows_of,
    run,
    spd,
)


@pytest.fixture(params=["gpt2", "llama"])
def model(request, tokenizer, float64_throughout) -> SimpleNamespace:
    return authors_model(request.param, tokenizer)


@pytest.mark.parametrize("max_offset", [4.0, 0.3])
@pytest.mark.parametrize("identity", [True, False], ids=["gu2024", "meng2022"])
def test_romes_update(model, identity, max_offset):
    """compute_u.py and compute_v.py: direction C⁻¹k̄, denominator and value at the bare prompt."""
    moment = SecondMoment.identity if identity else SecondMoment.corpus
    method = Rome(layer=1, keys=Keys.asymmetric, second_moment=moment, kl_at=KlAt.subject, max_offset=max_offset,
                  **SETTINGS)  # fmt: skip
    C_FF = torch.eye(F, dtype=torch.float64) if identity else spd(0)
    prepared = Prepared(CONTEXTS, factors=factors({"second_moment": C_FF}))
    for fact in FACTS:
        (change,) = method.update(model.lm, [fact], prepared, {}).changes.values()
        _, delta_D = authors_offset(model, model.matrices[1], fact, method)
        keys_CF = keys_of(model, 1, fact)
        left_F = torch.linalg.solve(C_FF, keys_CF.mean(0))
        expected_DF = torch.outer(delta_D / (keys_CF[0] @ left_F), left_F)
        assert distance(change, expected_DF) < STORED
        elsewhere = replace(method, kl_at=KlAt.prompt_end).update(model.lm, [fact], prepared, {})
        assert distance(*elsewhere.changes.values(), expected_DF) > 1e-3  # so the term's place decides something


LAYERS = [1, 2]
MOMENTS = {layer: spd(layer) for layer in LAYERS}


def projection(layer: int) -> torch.Tensor:
    """U (F, r), orthonormal."""
    return torch.linalg.qr(spd(10 + layer)).Q[:, :30]


def authors_batch(model, batch, method, past, solve) -> dict[int, torch.Tensor]:
    """The changes that execute_memit writes block after block, left in `plain`; `past` gains the batch's keys."""
    zs = [sum(authors_offset(model, model.blocks[LAYERS[-1]], fact, method)) for fact in batch]
    changes = {}
    for i, layer in enumerate(LAYERS):
        keys = [keys_of(model, layer, fact) for fact in batch]
        K_FE = torch.stack([torch.stack([keys_CF[:1].mean(0), keys_CF[1:].mean(0)]).mean(0) for keys_CF in keys], 1)
        now = [run(model, model.blocks[LAYERS[-1]], *rows_of(model, fact)[0])[2] for fact in batch]
        resid_DE = torch.stack([z_D - now_D for z_D, now_D in zip(zs, now, strict=True)], 1) / (len(LAYERS) - i)
        changes[layer] = solve(layer, K_FE, resid_DE, past[layer])
        weight = model.matrices[layer].weight
        weight.data += changes[layer].T if model.transposed else changes[layer]
        past[layer] = past[layer] + K_FE @ K_FE.T  # no later block moves a key of this one
    return changes


def memit_solve(layer, K_FE, resid_DE, past_FF):
    return resid_DE @ torch.linalg.solve(0.5 * MOMENTS[layer] + past_FF + K_FE @ K_FE.T, K_FE).T


def memit_forgetting(layer, K_FE, resid_DE, past_FF):
    return memit_solve(layer, K_FE, resid_DE, torch.zeros_like(past_FF))


def emmet_solve(layer, K_FE, resid_DE, past_FF):
    """emmet_main.py: w C is inverted, and a batch of several facts has d on its inner matrix."""
    C_inv_FF = torch.linalg.inv(0.5 * MOMENTS[layer])
    inner_EE = K_FE.T @ C_inv_FF @ K_FE
    if len(inner_EE) > 1:
        inner_EE = inner_EE + 0.2 * torch.eye(len(inner_EE), dtype=torch.float64)
    return resid_DE @ torch.linalg.inv(inner_EE) @ K_FE.T @ C_inv_FF


def alphaedit_solve(layer, K_FE, resid_DE, past_FF):
    P_FF = projection(layer) @ projection(layer).T
    left_FF = P_FF @ (K_FE @ K_FE.T + past_FF) + 0.3 * torch.eye(F, dtype=torch.float64)
    return torch.linalg.solve(left_FF, P_FF @ K_FE @ resid_DE.T).T


MEMIT = {"layers": LAYERS, "second_moment_weight": 0.5, "kl_at": KlAt.subject, **SETTINGS}
ALPHAEDIT = {"layers": LAYERS, "ridge": 0.3, "kl_at": KlAt.subject, **SETTINGS}
SECOND_MOMENTS = {f"second_moment/{layer}": C_FF for layer, C_FF in MOMENTS.items()}
NULL_SPACES = {f"null_space/{layer}": projection(layer) for layer in LAYERS}
ENERGIES = {f"energy/{layer}": torch.tensor(0.1) for layer in LAYERS}


@pytest.mark.parametrize(("method", "prepared", "solve"), [
    (Memit(**MEMIT), Prepared(CONTEXTS, factors=factors(SECOND_MOMENTS)), memit_forgetting),
    (MemitSeq(**MEMIT), Prepared(CONTEXTS, SECOND_MOMENTS), memit_solve),
    (AlphaEdit(**ALPHAEDIT), Prepared(CONTEXTS, NULL_SPACES | ENERGIES), alphaedit_solve),
    (Emmet(**MEMIT, damping=0.2), Prepared(CONTEXTS, factors=factors(SECOND_MOMENTS)), emmet_solve),
], ids=["memit", "memit_seq", "alphaedit", "emmet"])  # fmt: skip
def test_two_batches_of_memit_and_its_heirs(model, method, prepared, solve):
    past = {layer: torch.zeros(F, F, dtype=torch.float64) for layer in LAYERS}
    state = {}
    for batch in (FACTS[:2], FACTS[2:]):
        update = method.update(model.lm, batch, prepared, state)
        elsewhere = replace(method, kl_at=KlAt.prompt_end).update(model.lm, batch, prepared, state)
        expected = authors_batch(model, batch, method, past, solve)
        for layer, expected_DF in expected.items():
            name = model.lm.mlp_out_name(layer)
            assert distance(update.changes[name], expected_DF) < 10 * STORED
            assert distance(elsewhere.changes[name], expected_DF) > 1e-3
        state = method.extend(state, update, prepared)
        model.lm.weights.add(update.changes)


def test_the_references_prefixes_count_their_opening(model):
    """Drawn again one row at a time: n tokens in all, the start token and the opening among them."""
    generator = torch.Generator().manual_seed(3)
    expected = [""]
    for n, count in {5: 6, 10: 5}.items():
        rows = [ids_of(model, OPENINGS[i % 5]) for i in range(count)]
        while growing := [row for row in rows if len(row) < n]:
            drawn = torch.rand(len(growing), 1, generator=generator)[:, 0].tolist()
            for row, share in zip(growing, drawn, strict=True):
                logits_V = model.plain(input_ids=torch.tensor([row])).logits[0, -1]
                best = sorted(logits_V.topk(5).indices.tolist())
                cumulated = logits_V[best].softmax(-1).cumsum(-1)
                row.append(best[int((cumulated <= share * cumulated[-1]).sum())])
        assert [len(row) for row in rows] == [max(n, len(ids_of(model, OPENINGS[i % 5]))) for i in range(count)]
        texts = [model.tokenizer.decode(row[len(model.start) :]) for row in rows]
        expected += [" ".join(text.replace("{", " ").replace("}", " ").split()).rstrip(" .") for text in texts]
    assert sample_contexts(model.lm, {5: 6, 10: 5}, 3, count_opening=True) == tuple(expected)
    assert sample_contexts(model.lm, {5: 6, 10: 5}, 3) != tuple(expected)
