"""Tests the loss of v* and z against eq. 4, term by term in NumPy."""

import numpy as np
import pytest
import torch

from afteredit.edit.ingredients.target_value import value_loss
from afteredit.edit.methods.rome import Rome

SETTINGS = Rome(kl_weight=0.3, weight_decay=0.7)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.float64)


def test_the_loss_is_equation_4():
    """Returns two requests whose targets have 6 and 9 tokens over all contexts."""
    target_log_p = [-draw(6).abs(), -draw(9).abs()]
    log_p_EV, unedited_log_p_EV = draw(2, 11).log_softmax(-1), draw(2, 1, 11)[:, 0].log_softmax(-1)
    offsets_ED, start_norms_E = draw(2, 5), torch.tensor([2.0, 3.0], dtype=torch.float64)
    loss = value_loss(target_log_p, log_p_EV, unedited_log_p_EV, offsets_ED, start_norms_E, SETTINGS)
    for e in range(2):
        log_p, log_p0 = log_p_EV[e].numpy(), unedited_log_p_EV[e].numpy()
        nll, kl = -target_log_p[e].numpy().mean(), (np.exp(log_p) * (log_p - log_p0)).sum()
        decay = np.linalg.norm(offsets_ED[e].numpy()) / float(start_norms_E[e]) ** 2
        assert float(loss.nll_E[e]) == pytest.approx(nll, rel=1e-12)
        assert float(loss.kl_E[e]) == pytest.approx(kl, rel=1e-12) and kl > 0.1
        assert float(loss.total_E[e]) == pytest.approx(nll + 0.3 * kl + 0.7 * decay, rel=1e-12)


def test_an_offset_of_zero_costs_nothing_beside_the_target():
    log_p_EV = draw(1, 11).log_softmax(-1)
    zero_ED = torch.zeros(1, 5, dtype=torch.float64, requires_grad=True)
    loss = value_loss([-draw(4).abs()], log_p_EV, log_p_EV, zero_ED, torch.ones(1, dtype=torch.float64), SETTINGS)
    assert float(loss.total_E.detach()) == float(loss.nll_E.detach()) > 0
    loss.total_E.sum().backward()
    assert zero_ED.grad is not None and not zero_ED.grad.any()  # the norm's gradient at 0 is 0, not NaN
