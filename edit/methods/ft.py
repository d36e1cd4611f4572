"""FT: constrained fine-tuning, the baseline of Meng et al. (2022), after Zhu et al. (2020, arXiv 2012.00363).

Runs Adam on −log p(target | prompt) over the MLP output matrices of a few blocks, and clips every entry of the
change to ±max_change after each step (L∞).  The reference (FT+L in kmeng01/rome) does the same on one block.
Departures from it: each token of the target is predicted after those before it, where the reference reads all of them
off the prompt's last position; a batch of facts is one loss, their mean.
`epochs` makes it a fair baseline for batches ("Fine-tuning Done Right in Model Editing", ICLR 2026, LocFT-BF): several
passes over the batch in its order, each step on `minibatch` facts, where the published baselines train one fact to its
end before the next.  Departures from LocFT-BF: its passes go over the whole edit set, known in advance, and its answers
end in an end-of-text token; here a pass goes over one batch of the run, and the cap on every entry stays.
Only the blocks from the lowest trained one up are run again in each step.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from afteredit.edit.method import Given, Method, Prepared, check_layers, check_numbers
from afteredit.edit.request import EditRequest
from afteredit.edit.update import Dense, State, Update
from afteredit.model.costs.work import Cost, Work, activations

if TYPE_CHECKING:
    from torch import Tensor

    from afteredit.edit.hypernetwork.token_gradients import Answers
    from afteredit.model.lm import LM

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ft(Method):
    layers: list[int] | None = None  # blocks whose MLP output matrices are trained; None: the lowest, as published
    steps: int = 25  # losses computed; Adam steps are one fewer
    learning_rate: float = 5e-4
    max_change: float = 5e-4  # cap on every entry's |ΔW|
    stop_loss: float = 0.01  # no step is made on facts whose loss is below
    epochs: int = 0  # passes over the batch in small steps; 0: `steps` on the whole batch, as published
    minibatch: int = 1  # facts of one small step

    def __post_init__(self) -> None:
        check_layers(self.layers)
        check_numbers(self, steps="at least 1", learning_rate="above 0", max_change="above 0",
                      epochs="at least 0", minibatch="at least 1")  # fmt: skip

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
        """Returns what Adam changes in at most `steps` - 1 steps, or in `epochs` passes.  Mutates nothing."""
        import torch

        from afteredit.edit.hypernetwork.token_gradients import Answers
        from afteredit.model.hooks import hooked

        layers = self.edited_layers()
        deltas = {layer: torch.zeros(lm.widths(layer), device=lm.device, requires_grad=True) for layer in layers}
        pairs = [(request.question, request.target_new) for request in requests]
        size = self.minibatch if self.epochs else len(pairs)
        batches = [Answers(lm, pairs[start : start + size], layers) for start in range(0, len(pairs), size)]
        with hooked({lm.mlp_out(layer): _adding(delta_DF) for layer, delta_DF in deltas.items()}):
            before = _mean_loss(batches, len(pairs))
            n_steps = self._train(list(deltas.values()), batches)
            after = _mean_loss(batches, len(pairs))
        changes = {lm.mlp_out_name(layer): Dense(delta_DF.detach().cpu()) for layer, delta_DF in deltas.items()}
        norm = sum(change.norm() ** 2 for change in changes.values()) ** 0.5
        diagnostics = {"steps": n_steps, "loss": after, "loss_before": before, "update_norm": norm}
        return Update(changes, diagnostics=diagnostics)

    def cost(self, lm: LM, batch: Sequence[EditRequest], together: int) -> Cost:
        """Takes every step to be made; facts that are said well enough end it earlier."""
        simple, above = super().cost(lm, batch, together), lm.n_blocks - min(self.edited_layers())
        (whole,), entries = simple.update.passes, simple.disk / 4
        n_small = -(-len(batch) // self.minibatch) if self.epochs else 1  # steps of one pass over the batch
        step = replace(whole, tokens=math.ceil(whole.tokens / n_small), logits=math.ceil(whole.logits / n_small),
                       blocks=above, backward=above, times=(self.epochs or self.steps - 1) * n_small)  # fmt: skip
        passes = step, replace(whole, backward=0.0), replace(whole, backward=0.0, blocks=above, times=2)
        updating = activations(lm, step.tokens, above) + 16.0 * entries
        return replace(simple, update=Work(passes, moved=40.0 * entries * step.times), updating=updating)

    def _train(self, deltas: Sequence[Tensor], batches: Sequence[Answers]) -> int:
        """Changes `deltas` by Adam, pass after pass, and returns the number of steps.

        A small step whose loss is below `stop_loss` is left out; a pass without a step is the last.
        """
        import torch

        adam = torch.optim.Adam(deltas, lr=self.learning_rate)
        n_steps = 0
        for _ in range(self.epochs or self.steps - 1):
            before_this_pass = n_steps
            for batch in batches:
                with torch.enable_grad():
                    loss = batch.outcome()[0].mean()
                if float(loss.detach()) < self.stop_loss:
                    continue
                adam.zero_grad()
                loss.backward()
                adam.step()
                n_steps += 1
                with torch.no_grad():
                    for delta_DF in deltas:
                        delta_DF.clamp_(-self.max_change, self.max_change)
            if n_steps == before_this_pass:
                break
        return n_steps


def _mean_loss(batches: Sequence[Answers], n_facts: int) -> float:
    """Returns the mean loss of all facts under the change as it is."""
    import torch

    with torch.no_grad():
        return sum(float(batch.outcome()[0].sum()) for batch in batches) / n_facts


def _adding(delta_DF: Tensor) -> Any:
    def hook(_module: Any, args: tuple, output: Tensor) -> Tensor:
        return output + (args[0].to(delta_DF.dtype) @ delta_DF.to(args[0].device).T).to(output.dtype)

    return hook
