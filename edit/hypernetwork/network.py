"""MEND's hypernetwork turns a gradient's rank-one terms into an edit's (Mitchell et al., ICLR 2022, sec. 3.2, eq. 3).

    z = [k, δ], normalised;   h = z + σ(s₁ ⊙ (U₁V₁z + b₁) + o₁);   [k̃, δ̃] = h + σ(s₂ ⊙ (U₂V₂h + b₂) + o₂)

with σ = max(0, ·).  U, b, o start at 0 and s at 1, so that the network starts as the identity; V is drawn from N(0, 1),
as in the reference (eric-mitchell/mend).  Matrices of one shape share a network and the statistics of its input; s, o
and the step size α are each matrix's own.  As there, its output stays in normalised units: α bridges the scales.

N terms, Z = F + D, M matrices that share a network, R rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn


class RunningNorm(nn.Module):
    """Computes (z − mean) / (deviation + 1e-7) over all vectors observed; returns z as it is until two were."""

    count: Tensor
    mean_Z: Tensor
    squares_Z: Tensor  # sum of squared distances from the mean

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.register_buffer("mean_Z", torch.zeros(width))
        self.register_buffer("squares_Z", torch.zeros(width))

    @torch.no_grad()
    def observe(self, z_NZ: Tensor) -> None:
        """Merges a batch into mean and variance, as if its vectors had come one by one (Chan et al., 1979)."""
        n_new, n_old = len(z_NZ), int(self.count)
        if n_new:
            mean_Z = z_NZ.mean(0)
            step_Z = mean_Z - self.mean_Z
            share = n_new / (n_old + n_new)
            self.mean_Z += share * step_Z
            self.squares_Z += (z_NZ - mean_Z).square().sum(0) + n_old * share * step_Z.square()
            self.count += n_new

    def forward(self, z_NZ: Tensor) -> Tensor:
        if self.count < 2:
            return z_NZ
        deviation_Z = (self.squares_Z / (self.count - 1)).sqrt()
        return (z_NZ - self.mean_Z) / (deviation_Z + 1e-7)


class ResidualLayer(nn.Module):
    """Computes z + σ(s ⊙ (UVz + b) + o)."""

    def __init__(self, width: int, rank: int, n_matrices: int):
        super().__init__()
        rank = min(rank, width)
        self.U_ZR = nn.Parameter(torch.zeros(width, rank))
        self.V_RZ = nn.Parameter(torch.zeros(rank, width))
        self.bias_Z = nn.Parameter(torch.zeros(width))
        self.scale_MZ = nn.Parameter(torch.ones(n_matrices, width))
        self.shift_MZ = nn.Parameter(torch.zeros(n_matrices, width))

    def forward(self, z_NZ: Tensor, matrix: int) -> Tensor:
        mixed_NZ = z_NZ @ self.V_RZ.T @ self.U_ZR.T + self.bias_Z
        # clamp and not relu: at 0, where everything starts, relu's gradient is 0 and nothing would ever be learned
        return z_NZ + (self.scale_MZ[matrix] * mixed_NZ + self.shift_MZ[matrix]).clamp(min=0)


class Shared(nn.Module):
    """The network of all matrices of one shape."""

    def __init__(self, width: int, rank: int, n_matrices: int):
        super().__init__()
        self.norm = RunningNorm(width)
        self.layers = nn.ModuleList(ResidualLayer(width, rank, n_matrices) for _ in range(2))

    def forward(self, z_NZ: Tensor, matrix: int) -> Tensor:
        z_NZ = self.norm(z_NZ)
        for layer in self.layers:
            z_NZ = layer(z_NZ, matrix)
        return z_NZ


class Hypernetwork(nn.Module):
    """Maps terms (k, δ) of a matrix's gradient to factors of its change, for matrices of the given (D, F)."""

    def __init__(self, shapes: Sequence[tuple[int, int]], rank: int):
        super().__init__()
        names = [f"{D}x{F}" for D, F in shapes]
        self._places = [(name, names[:i].count(name)) for i, name in enumerate(names)]
        widths = {name: D + F for name, (D, F) in zip(names, shapes, strict=True)}
        self.shared = nn.ModuleDict({name: Shared(Z, rank, names.count(name)) for name, Z in widths.items()})
        self.alpha_M = nn.Parameter(torch.zeros(len(shapes)))

    @torch.no_grad()
    def start(self, alpha: float, seed: int) -> Hypernetwork:
        """Sets α and draws V, which do not start at 0 or 1; returns the network."""
        generator = torch.Generator().manual_seed(seed)
        self.alpha_M.fill_(alpha)
        for name, parameter in self.named_parameters():
            if name.endswith("V_RZ"):
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        return self

    def observe(self, matrix: int, keys_NF: Tensor, deltas_ND: Tensor) -> None:
        """Adds these terms to the statistics that terms are normalised by."""
        cast(Shared, self.shared[self._places[matrix][0]]).norm.observe(self._joined(keys_NF, deltas_ND))

    def forward(self, matrix: int, keys_NF: Tensor, deltas_ND: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (left_ND, right_NF) = (−α δ̃, k̃) in the network's dtype: the change is Σ_n left_n right_nᵀ (D, F)."""
        name, place = self._places[matrix]
        out_NZ = self.shared[name](self._joined(keys_NF, deltas_ND), place)
        right_NF, left_ND = out_NZ.split([keys_NF.shape[-1], deltas_ND.shape[-1]], dim=-1)
        return -self.alpha_M[matrix] * left_ND, right_NF

    def _joined(self, keys_NF: Tensor, deltas_ND: Tensor) -> Tensor:
        return torch.cat([keys_NF.to(self.alpha_M), deltas_ND.to(self.alpha_M)], dim=-1)


def loaded(shapes: Sequence[tuple[int, int]], rank: int, tensors: Mapping[str, Tensor]) -> Hypernetwork:
    """Returns the network whose state `tensors` are, without copying them."""
    with torch.device("meta"):
        network = Hypernetwork(shapes, rank)
    network.load_state_dict(dict(tensors), assign=True)
    return network.requires_grad_(False)
