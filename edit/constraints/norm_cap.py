"""Norm cap: an edited matrix's Frobenius norm stays within (1 + growth) times its unedited one.

    W + s ΔW,   s the largest in [0, 1] with |W + s ΔW| ≤ max((1 + growth) |W₀|, |W|)

The simplest member of a family: sequential editing makes the norms of edited matrices grow, roughly exponentially, and
models collapse with it (Gupta et al., 2025, ENCORE, arXiv 2502.01636; Liu et al., 2026, NAS, arXiv 2602.02543).  It is
neither's algorithm: ENCORE adds a norm term to the least squares that is solved, NAS rescales every value vector to the
unedited model's norm; both keep writing what this cap would cut.
Where W is above the cap already (it was written under another setting), nothing may make it larger still: ΔW is written
as far as the norm does not grow, and not at all where every step grows it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from afteredit.edit.constraint import Unconstrained
from afteredit.edit.update import Change, Dense, LowRank, Update
from afteredit.store.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

    from afteredit.edit.constraint import Weights


@dataclass(frozen=True)
class NormCap(Unconstrained):
    growth: float = 0.1  # of |W|, in multiples of |W₀|

    def __post_init__(self) -> None:
        if not (self.growth >= 0 and math.isfinite(self.growth)):
            raise BadInput(f"constraint.growth={self.growth}; it must be at least 0 (0.1: |W| grows by at most a "
                           "tenth); for no cap use constraint=none")  # fmt: skip

    def constrain(self, update: Update, W_now: Weights, W_base: Weights) -> Update:
        changes = {}
        for name, change in update.changes.items():
            cap = (1 + self.growth) * float(W_base(name).double().norm())
            changes[name] = scaled(change, largest_step(W_now(name), change.dense(), cap))
        return replace(update, changes=changes)


def largest_step(W_DF: Tensor, delta_DF: Tensor, cap: float) -> float:
    """Returns s, the larger root of a s² + 2 b s + c = limit², with a = |ΔW|², b = ⟨W, ΔW⟩, c = |W|²; at most 1."""
    W_DF = W_DF.to(delta_DF.device).double()
    norm = float(W_DF.norm())
    limit = max(cap, norm)
    if float((W_DF + delta_DF).norm()) <= limit:
        return 1.0
    a, b = float(delta_DF.square().sum()), float((W_DF * delta_DF).sum())
    room = (limit - norm) * (limit + norm)
    root = math.sqrt(b * b + a * room)
    return min(1.0, room / (b + root) if b > 0 else (root - b) / a)  # no difference of two nearly equal numbers


def scaled(change: Change, s: float) -> Change:
    """Returns s · change, in float64, of the same kind; the change itself where s is 1."""
    if s == 1:
        return change
    if isinstance(change, LowRank):
        return LowRank(s * change.left_Dr.double(), change.right_Fr)
    return Dense(s * change.dense())
