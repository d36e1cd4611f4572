"""Tests MEND's hypernetwork: equation 3 computed by hand, its start, its statistics."""

import pytest
import torch
from torch.testing import assert_close

from afteredit.edit.hypernetwork.network import Hypernetwork, RunningNorm, loaded

SHAPES = [(4, 6), (4, 6), (3, 6)]  # (D, F): two matrices of one shape, one of another


def terms(n: int, D: int = 4, F: int = 6, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, F, generator=generator), torch.randn(n, D, generator=generator)


@pytest.fixture
def network() -> Hypernetwork:
    return Hypernetwork(SHAPES, rank=5).start(alpha=1e-4, seed=0)


@pytest.fixture
def stirred(network) -> Hypernetwork:
    """Returns a network in which no parameter has its initial value."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return network


@pytest.mark.parametrize("sizes", [[7], [2, 5], [1, 1, 5], [3, 0, 4]])
def test_statistics_do_not_depend_on_how_vectors_come_in_batches(sizes):
    z_NZ = 5 + 3 * torch.randn(7, 4, generator=torch.Generator().manual_seed(1))
    norm = RunningNorm(4)
    for batch_NZ in z_NZ.split(sizes):
        norm.observe(batch_NZ)
    assert int(norm.count) == 7
    probe_NZ = torch.randn(3, 4)
    assert_close(norm(probe_NZ), (probe_NZ - z_NZ.mean(0)) / (z_NZ.std(0) + 1e-7), rtol=1e-5, atol=1e-5)


def test_nothing_is_normalised_before_two_vectors_were_observed():
    norm, probe_NZ = RunningNorm(4), torch.randn(3, 4)
    assert torch.equal(norm(probe_NZ), probe_NZ)
    norm.observe(probe_NZ[:1])
    assert torch.equal(norm(probe_NZ), probe_NZ)


def test_it_starts_as_the_identity_times_minus_alpha(network):
    for matrix, (D, F) in enumerate(SHAPES):
        keys_NF, deltas_ND = terms(5, D, F)
        left_ND, right_NF = network(matrix, keys_NF, deltas_ND)
        assert torch.equal(right_NF, keys_NF)
        assert_close(left_ND, -1e-4 * deltas_ND, rtol=1e-6, atol=0)


def test_equation_3_by_hand(stirred):
    """Keys come first, then deltas; statistics belong to the shape, scale and shift to the matrix."""
    for seed in (5, 6):
        stirred.observe(seed - 5, *terms(9, seed=seed))  # both matrices of the shape feed one set of statistics
    seen_NZ = torch.cat([torch.cat(terms(9, seed=seed), dim=1) for seed in (5, 6)])
    keys_NF, deltas_ND = terms(2)
    z_Z = (torch.cat([keys_NF, deltas_ND], dim=1)[1] - seen_NZ.mean(0)) / (seen_NZ.std(0) + 1e-7)
    first, second = stirred.shared["4x6"].layers
    for layer in (first, second):
        mixed_Z = layer.U_ZR @ (layer.V_RZ @ z_Z) + layer.bias_Z
        z_Z = z_Z + torch.relu(layer.scale_MZ[1] * mixed_Z + layer.shift_MZ[1])
    left_ND, right_NF = stirred(1, keys_NF, deltas_ND)
    assert_close(right_NF[1], z_Z[:6], rtol=1e-5, atol=1e-5)
    assert_close(left_ND[1], -stirred.alpha_M[1] * z_Z[6:], rtol=1e-5, atol=1e-5)


def test_everything_that_can_be_learned_at_the_start_has_a_gradient(network):
    """ReLU's gradient at 0 is 0: a network that started as the identity would not learn."""
    left_ND, right_NF = network(0, *terms(8))
    (left_ND.sum() + right_NF.sum()).backward()
    for layer in network.shared["4x6"].layers:
        assert layer.U_ZR.grad.abs().sum() > 0
        assert layer.shift_MZ.grad[0].abs().sum() > 0


def test_matrices_of_one_shape_share_all_but_scale_shift_and_alpha(stirred):
    assert set(stirred.shared) == {"4x6", "3x6"}
    assert stirred.shared["4x6"].layers[0].scale_MZ.shape == (2, 10)
    assert stirred.alpha_M.shape == (3,)
    before = stirred(0, *terms(5))
    with torch.no_grad():
        for layer in stirred.shared["4x6"].layers:
            layer.scale_MZ[1] += 1
            layer.shift_MZ[1] += 1
        stirred.alpha_M[1] += 1
    for one, other in zip(before, stirred(0, *terms(5)), strict=True):
        assert torch.equal(one, other)


def test_a_loaded_network_is_the_same_one_without_a_copy_or_gradients(stirred):
    stirred.observe(0, *terms(4))
    tensors = stirred.state_dict()
    again = loaded(SHAPES, 5, tensors)
    for one, other in zip(stirred(1, *terms(5)), again(1, *terms(5)), strict=True):
        assert torch.equal(one, other)
    assert again.alpha_M.data_ptr() == tensors["alpha_M"].data_ptr()
    assert not any(parameter.requires_grad for parameter in again.parameters())


def test_the_start_follows_from_the_seed_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    V = [Hypernetwork(SHAPES, 5).start(1e-4, seed).shared["4x6"].layers[0].V_RZ for seed in (0, 0, 1)]
    assert torch.equal(V[0], V[1])
    assert not torch.equal(V[0], V[2])
    assert torch.equal(torch.get_rng_state(), before)
