"""The loss that MEND's hypernetwork is trained with (Mitchell et al., ICLR 2022, sec. 3.3, eq. 4).

    L = c_edit · (−log p_W̃(target | prompt or a rewording)) + KL(p_W(·|neighbour) ‖ p_W̃(·|neighbour))

Each row of a batch is an edit with its own W̃.  B rows, A wordings of a question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from afteredit.edit.hypernetwork.network import Hypernetwork
from afteredit.edit.hypernetwork.token_gradients import each_row_changed
from afteredit.edit.hypernetwork.training_batches import Batch
from afteredit.edit.hypernetwork.training_progress import Progress
from afteredit.edit.hypernetwork.training_settings import TrainingSettings
from afteredit.model.lm import LM


def learn(lm: LM, layers: Sequence[int], progress: Progress, batch: Batch, settings: TrainingSettings) -> float | None:
    """Takes one step of Adam; returns the loss, or None where something was not finite and nothing was learned."""
    network = progress.network
    if not all(terms.is_finite() for terms in batch.terms.values()):
        return None  # before it reaches the statistics, which would never be finite again
    for matrix, layer in enumerate(layers):
        network.observe(matrix, batch.terms[layer].keys_NF, batch.terms[layer].deltas_ND)
    progress.adam.zero_grad()
    with torch.enable_grad():
        nll_AB, _, kl_B = after_edits(lm, layers, network, batch)
        loss = (settings.edit_weight * nll_AB.mean(0) + kl_B).mean()
        loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), settings.max_gradient)
    if not (loss.isfinite() and norm.isfinite()):
        return None
    progress.adam.step()
    return float(loss.detach())


def after_edits(
    lm: LM, layers: Sequence[int], network: Hypernetwork | None, batch: Batch
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns what holds after each row's own edit, or without `network` after none: −log p(target) (A, B), whether
    every token of the target is the argmax (A, B), and the KL at the row's neighbour (B,)."""
    changes = {}
    if network is not None:
        for matrix, layer in enumerate(layers):
            terms = batch.terms[layer]
            left_ND, right_NF = network(matrix, terms.keys_NF, terms.deltas_ND)
            changes[layer] = terms.by_row(left_ND), terms.by_row(right_NF)
    with each_row_changed(lm, changes):
        nlls, forced = zip(*(answers.outcome() for answers in batch.answers), strict=True)
        return torch.stack(nlls), torch.stack(forced), batch.neighbours.kl()


@dataclass(frozen=True)
class Validation:
    """Means over the rows held back."""

    nll: float  # of the target, over the prompt and its rewording
    forced: float  # share of edits after whose prompt every token of the target is the argmax
    paraphrase: float  # the same after the rewording
    kl: float

    def loss(self, settings: TrainingSettings) -> float:
        return settings.edit_weight * self.nll + self.kl

    def __str__(self) -> str:
        return (f"target argmax in {self.forced:.0%} (reworded {self.paraphrase:.0%}), nll {self.nll:.3f}, "
                f"kl {self.kl:.4f}")  # fmt: skip


@torch.no_grad()
def validate(lm: LM, layers: Sequence[int], network: Hypernetwork | None, batches: Sequence[Batch]) -> Validation:
    """Returns the means over all rows of `batches`, each after its own edit or without `network` after none."""
    outcomes = [after_edits(lm, layers, network, batch) for batch in batches]
    nll_AE, forced_AE = (torch.cat([outcome[i] for outcome in outcomes], dim=1).double() for i in (0, 1))
    kl_E = torch.cat([outcome[2] for outcome in outcomes]).double()
    return Validation(float(nll_AE.mean()), float(forced_AE[0].mean()), float(forced_AE[1].mean()), float(kl_E.mean()))
