"""Metrics see the matrices that a view restrains, and the raw ones come back to the bit."""

import pytest
import torch

from afteredit.edit.constraints.prune import Prune
from afteredit.edit.update import LowRank
from afteredit.evaluate.inference.held_out import held_out_windows
from afteredit.evaluate.measure import Measure

TEXT = "The old town has a market, and people come to buy fish and bread. " * 20


def edited(make_lm, dtype=torch.float32, strength=0.5):
    lm = make_lm("gpt2", dtype=dtype)
    D, F = lm.widths(1)
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(D, 1, generator=generator), torch.randn(F, 1, generator=generator)
    lm.weights.add({lm.mlp_out_name(1): LowRank(strength * left, right)})
    return lm


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_the_view_shows_is_measured_and_the_raw_weights_stay(make_lm, fact, dtype):
    lm = edited(make_lm, dtype)
    windows = held_out_windows(lm, TEXT, 200)
    raw, sha = lm.model.get_parameter(lm.mlp_out_name(1)).clone(), lm.weights.sha256()
    plain = Measure(lm, [], windows, [], seed=0).checkpoint([fact], last=True).row
    unedited_view = Measure(lm, [], windows, [], 0, view=lambda W_base_DF, _W_DF: W_base_DF.clone())
    viewed = unedited_view.checkpoint([fact], last=True).row
    assert torch.equal(lm.model.get_parameter(lm.mlp_out_name(1)), raw)
    assert lm.weights.sha256() == sha
    assert viewed["drift/1/relative_norm"] == 0 < plain["drift/1/relative_norm"]
    assert viewed["editing/retained/generated/neighbourhood"] == 1
    lm.weights.restore()
    base = Measure(lm, [], windows, [], seed=0).checkpoint([fact], last=True).row
    assert viewed["drift/perplexity"] == base["drift/perplexity"] != plain["drift/perplexity"]


def test_prune_is_measured_restrained(make_lm, fact):
    """The change has rank one and σ far above σ_max(W0): drift shows f(σ), and W itself keeps σ."""
    lm = edited(make_lm, strength=3.0)
    name = lm.mlp_out_name(1)
    change_DF = lm.weights.W(name) - lm.weights.W_base(name)
    m = float(torch.linalg.matrix_norm(lm.weights.W_base(name).double(), 2))
    sigma = float(torch.linalg.matrix_norm(change_DF.double(), 2))
    assert sigma > 2 * m
    prune = Prune()
    row = Measure(lm, [], held_out_windows(lm, TEXT, 60), [], 0, view=prune.view).checkpoint([fact], last=True).row
    restrained = m + float(torch.log(torch.tensor(sigma / m)))
    assert row["drift/1/relative_norm"] == pytest.approx(restrained / float(lm.weights.W_base(name).norm()), rel=1e-4)
    assert torch.equal(lm.weights.W(name) - lm.weights.W_base(name), change_DF)
