"""FT: constrained fine-tuning, the baseline of Meng et al. (2022), after Zhu et al. (2020, arXiv 2012.00363).

Runs Adam on −log p(target | prompt) over the MLP output matrices of a few blocks, and clips every entry of the
change to ±max_change after each step (L∞).  The reference (FT+L in kmeng01/rome) does the same on one block.
Departures from it: each token of the target is predicted after those before it, where the reference reads all of them
off the prompt's last position; a batch of facts is one loss, their mean.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from afteredit.edit.method import Given, Method, Prepared, check_layers, check_numbers
from afteredit.edit.request import EditRequest
from afteredit.edit.update import Dense, State, Update

if TYPE_CHECKING:
    from torch import Tensor

    from afteredit.model.lm import LM

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ft(Method):
    layers: list[int] | None = None  # blocks whose MLP output matrices are trained; None: the lowest, as published
    steps: int = 25  # losses computed; Adam steps are one fewer
    learning_rate: float = 5e-4
    max_change: float = 5e-4  # cap on every entry's |ΔW|
    stop_loss: float = 0.01

    def __post_init__(self) -> None:
        check_layers(self.layers)
        check_numbers(self, steps="at least 1", learning_rate="above 0", max_change="above 0")

    def edited(self, lm: LM) -> list[str]:
        return [lm.mlp_out_name(layer) for layer in self.edited_layers()]

    def edited_layers(self) -> list[int]:
        """Returns the blocks whose MLP output matrices are trained, lowest first."""
        return sorted(self.layers) if self.layers else [0]

    def prepare(self, lm: LM, given: Given) -> Prepared:
        if self.layers is None:
            log.warning("no edit layers are known for this model: blocks %s of %d are used (the lowest one, as "
                        "published); set method.layers to choose", self.edited_layers(), lm.n_blocks)  # fmt: skip
        return Prepared()

    def update(self, lm: LM, requests: Sequence[EditRequest], prepared: Prepared, state: State) -> Update:
        """Returns what Adam changes in at most `steps` - 1 steps.  Mutates nothing."""
        import torch

        from afteredit.model.hooks import hooked

        layers = self.edited_layers()
        deltas = {layer: torch.zeros(lm.widths(layer), device=lm.device, requires_grad=True) for layer in layers}
        adam = torch.optim.Adam(list(deltas.values()), lr=self.learning_rate)
        rows = [(lm.tokens.question_ids(request.question), lm.tokens.answer_ids(request.target_new, request.question))
                for request in requests]  # fmt: skip
        with hooked({lm.mlp_out(layer): _adding(delta_DF) for layer, delta_DF in deltas.items()}):
            for step in range(self.steps):
                with torch.enable_grad():
                    loss = target_nll(lm, rows)
                if step == 0:
                    first_loss = float(loss.detach())
                if float(loss.detach()) < self.stop_loss or step == self.steps - 1:
                    break
                adam.zero_grad()
                loss.backward()
                adam.step()
                with torch.no_grad():
                    for delta_DF in deltas.values():
                        delta_DF.clamp_(-self.max_change, self.max_change)
        changes = {lm.mlp_out_name(layer): Dense(delta_DF.detach().cpu()) for layer, delta_DF in deltas.items()}
        norm = sum(change.norm() ** 2 for change in changes.values()) ** 0.5
        diagnostics = {"steps": step, "loss": float(loss.detach()), "loss_before": first_loss, "update_norm": norm}
        return Update(changes, diagnostics=diagnostics)


def _adding(delta_DF: Tensor) -> Any:
    def hook(_module: Any, args: tuple, output: Tensor) -> Tensor:
        return output + (args[0].to(delta_DF.dtype) @ delta_DF.to(args[0].device).T).to(output.dtype)

    return hook


def target_nll(lm: LM, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Tensor:
    """Returns −log p of each row's answer ids after its prompt ids, in nats: mean over tokens, then over rows."""
    import torch

    from afteredit.model.tensors import pad

    ids_BT, mask_BT = pad([[*prompt, *answer[:-1]] for prompt, answer in rows], "right")
    hidden_BTD = lm.forward(ids_BT, mask_BT)
    losses = []
    for row, (prompt, answer) in enumerate(rows):
        log_p_TV = lm.logits(hidden_BTD[row, len(prompt) - 1 : len(prompt) - 1 + len(answer)]).log_softmax(-1)
        losses.append(-log_p_TV[torch.arange(len(answer)), torch.tensor(answer)].mean())
    return torch.stack(losses).mean()
