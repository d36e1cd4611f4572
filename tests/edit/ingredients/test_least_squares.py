"""Tests the linear systems of ROME, MEMIT and the methods based on them against NumPy's inverse."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from afteredit.edit.ingredients.least_squares import (
    before_norm,
    factors,
    inverse_times,
    solve_regularised,
    solve_weighted,
)
from afteredit.store.errors import BadInput, NoEdit


def spd(size: int, seed: int = 0) -> torch.Tensor:
    sample_NF = torch.randn(4 * size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return sample_NF.T @ sample_NF / len(sample_NF) + 0.05 * torch.eye(size, dtype=torch.float64)


def factor(C_FF: torch.Tensor) -> torch.Tensor:
    return factors({"C": C_FF})["C"]


def test_regularised_solves_its_equation():
    A_FF, keys_FE = spd(9), torch.randn(9, 3, generator=torch.Generator().manual_seed(1))
    K = keys_FE.double().numpy()
    expected = np.linalg.inv(A_FF.numpy() + K @ K.T) @ K
    assert_close(solve_regularised(A_FF, keys_FE), torch.from_numpy(expected), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("n_keys", [1, 3, 20])
def test_weighted_solves_the_same_equation_by_a_smaller_system(n_keys):
    C_FF, keys_FE = spd(9).float(), torch.randn(9, n_keys, generator=torch.Generator().manual_seed(1))
    K = keys_FE.double().numpy()
    expected = np.linalg.inv(2.5 * C_FF.double().numpy() + K @ K.T) @ K
    assert_close(solve_weighted(2.5, keys_FE, factor(C_FF)), torch.from_numpy(expected), rtol=1e-9, atol=1e-12)


def test_a_singular_second_moment_is_named():
    with pytest.raises(BadInput, match="tokens_per_key_dim"):
        solve_regularised(torch.zeros(4, 4), torch.ones(4, 1))
    with pytest.raises(BadInput, match="tokens_per_key_dim"):
        factor(torch.ones(4, 4))
    with pytest.raises(BadInput, match="1 of the 4 neurons before .* never fire.*another block"):
        factor(torch.diag(torch.tensor([1.0, 0.0, 2.0, 3.0])))


@pytest.mark.parametrize(("weight", "noise"), [(1e-3, 0.0), (0.0, 0.0), (0.0, 1e-6)])
def test_keys_too_alike_are_named(weight, noise):
    """Float32 rounding alone tells the last ones apart."""
    keys_FE = 1e9 * (1 + noise * torch.randn(4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    with pytest.raises(NoEdit, match="second_moment_weight"):
        solve_weighted(weight, keys_FE, factor(spd(4)))


def test_keys_that_differ_in_a_thousandth_are_told_apart():
    keys_FE = 1 + 1e-3 * torch.eye(4, 2, dtype=torch.float64)
    assert_close(keys_FE.T @ solve_weighted(0.0, keys_FE, factor(spd(4))), torch.eye(2).double(), rtol=0, atol=1e-7)


def test_keys_that_have_overflowed_give_no_number_instead_of_an_error():
    keys_FE = torch.full((4, 1), torch.inf)
    assert solve_regularised(spd(4), keys_FE).isnan().all()
    assert solve_weighted(1.0, keys_FE, factor(spd(4))).isnan().all()


def test_keys_are_solved_for_in_float64():
    sample_NF = torch.randn(40, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    C_FF, keys_FE = sample_NF.T @ sample_NF / 40, sample_NF[:2].T.float()
    expected_FE = torch.linalg.solve(C_FF, keys_FE.double())
    assert_close(inverse_times(factors({"C": C_FF})["C"], keys_FE), expected_FE, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("size", [3.0, 0.1])  # of what is wanted: outside and inside of what the norm can give
def test_before_a_norm_stands_an_x_as_long_as_now_whose_normalised_output_is_nearest(size):
    torch.manual_seed(0)
    D, E = 6, 4
    g_D, v_DE, now_DE = torch.rand(D).double() + 0.3, size * torch.randn(D, E).double(), torch.randn(D, E).double()
    x_DE = before_norm(v_DE, now_DE, g_D)

    def left(x_DX: torch.Tensor, e: int) -> torch.Tensor:
        return (g_D[:, None] * x_DX / x_DX.square().mean(0).sqrt() - v_DE[:, e : e + 1]).norm(dim=0)

    for e in range(E):
        best = float(left(x_DE[:, e : e + 1], e))
        assert best <= float(left(torch.randn(D, 200_000).double(), e).min()) + 1e-9
        nearby = x_DE[:, e : e + 1] + 1e-3 * torch.randn(D, 1000).double()
        assert best <= float(left(nearby, e).min()) + 1e-12
        assert float(x_DE[:, e].norm()) == pytest.approx(float(now_DE[:, e].norm()))
