"""Writes a random share of each update's entries: RECT's control (Gu et al., EMNLP 2024, "Random 40%").

Exactly round(keep · D · F) entries stay as they are, the rest becomes 0; the published code draws each entry by itself
from torch's global generator, so that its share is right on average and its mask differs from run to run.
Here the mask is drawn from `seed`, the matrix's name and the SHA-256 of the update's tensors: another edit draws
another mask, and a replay draws the same one again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from afteredit.edit.constraint import Unconstrained
from afteredit.edit.constraints.kept_entries import check_share, only
from afteredit.edit.update import Change, Dense, Update

if TYPE_CHECKING:
    from afteredit.edit.constraint import Weights


@dataclass(frozen=True)
class RandomEntries(Unconstrained):
    keep: float = 0.4  # share of ΔW's entries that are written
    seed: int = 0

    def __post_init__(self) -> None:
        check_share(self.keep)

    def constrain(self, update: Update, W_now: Weights, W_base: Weights) -> Update:
        drawn_by = f"{self.seed}|{sha256(update)}"
        return replace(update, changes={n: self._part(c, f"{drawn_by}|{n}") for n, c in update.changes.items()})

    def _part(self, change: Change, drawn_by: str) -> Dense:
        import torch

        delta_DF = change.dense()
        seed = int.from_bytes(hashlib.sha256(drawn_by.encode()).digest()[:8])
        generator = torch.Generator().manual_seed(seed)  # on the CPU: devices draw differently
        order_N = torch.randperm(delta_DF.numel(), generator=generator)
        return only(delta_DF, order_N[: round(self.keep * delta_DF.numel())].to(delta_DF.device))


def sha256(update: Update) -> str:
    """Returns the SHA-256 of all that the journal stores of an update; reading the update back does not change it."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(update.flat().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())  # NumPy has no bfloat16
    return digest.hexdigest()
