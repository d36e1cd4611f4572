"""MEND: a trained hypernetwork turns one fact's gradient into an edit (Mitchell et al., ICLR 2022, arXiv 2110.11309).

    W̃ = W − α Σ_t δ̃_t k̃_tᵀ,   (k̃_t, δ̃_t) = g(k_t, δ_t),   ∇W(−log p(target | prompt)) = Σ_t δ_t k_tᵀ

g is in edit/hypernetwork/network.py, its training in training.py beside it.  Each fact of a batch is edited as if it
were alone, and the changes are summed.

Departures from the paper and its code (eric-mitchell/mend), all recorded because they change numbers:
- only the MLP output matrices of the last `n_layers` blocks are edited; the paper edits both MLP matrices there;
- the change is subtracted, as the paper writes; the code adds it and leaves the sign to be learned;
- each fact's loss is the mean over its own target tokens; a batch's loss is not divided by the number of facts;
- g learns from batches at once, where the code accumulates single edits, and from the KL at a neighbour's next token
  only, where the code averages over all tokens of a text;
- where conf/model says so, training is far shorter than the paper's, with larger steps.
Edits in sequence: gradients are taken on the model as it is now, while g was trained on the unedited one only.  The
paper does not do this; from the second edit on the model is no longer the one that g was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from afteredit.edit.hypernetwork.training_settings import TrainingSettings
from afteredit.edit.method import Given, Method, Prepared, check_numbers
from afteredit.edit.request import EditRequest
from afteredit.edit.update import LowRank, State, Update
from afteredit.model.costs.work import Cost, Work, activations
from afteredit.store.errors import BadInput
from afteredit.store.user_cache import content_hash

if TYPE_CHECKING:
    from torch import Tensor

    from afteredit.model.lm import LM

FACTS_AT_ONCE = 32  # facts whose gradients are computed at once: bounds the memory


@dataclass(frozen=True)
class Mend(TrainingSettings, Method):
    """The keys of the training, and how many blocks are edited."""

    n_layers: int = 3  # the last blocks, whose MLP output matrices are edited

    def __post_init__(self) -> None:
        super().__post_init__()
        check_numbers(self, n_layers="at least 1")

    def edited(self, lm: LM) -> list[str]:
        return [lm.mlp_out_name(layer) for layer in self.edited_layers(lm)]

    def edited_layers(self, lm: LM) -> list[int]:
        """Returns the last `n_layers` blocks, lowest first."""
        if self.n_layers > lm.n_blocks:
            raise BadInput(f"method.n_layers={self.n_layers}, but the model has {lm.n_blocks} blocks; set "
                           f"method.n_layers={lm.n_blocks} or less")  # fmt: skip
        return list(range(lm.n_blocks - self.n_layers, lm.n_blocks))

    def content(self, given: Given) -> dict[str, str]:
        return {"training": content_hash([row.content for row in given.training()])}

    def prepare(self, lm: LM, given: Given) -> Prepared:
        """Returns the trained network: from the cache, or trained now on the edit set's training split.

        The run's seed plays no part, so that the runs of a sweep share one network.
        """
        from afteredit.edit.hypernetwork.training import trained

        tensors, digest = trained(lm, self.edited_layers(lm), given.training(), self)
        return Prepared(tensors=tensors, hashes={"hypernetwork": digest})

    def cost(self, lm: LM, batch: Sequence[EditRequest], together: int) -> Cost:
        """One gradient, and the network: each step of its training runs a batch once and the edited blocks thrice."""
        simple, layers = super().cost(lm, batch, together), self.edited_layers(lm)
        (whole,), width = simple.update.passes, sum(lm.widths(layers[0]))
        update = replace(whole, logits=0, backward=0.0), replace(whole, blocks=self.n_layers, backward=self.n_layers)
        n_each = whole.tokens / len(batch)
        step = replace(whole, tokens=int(n_each * self.batch), logits=2 * self.batch, backward=0.0)
        learning = replace(step, blocks=self.n_layers, backward=self.n_layers, times=3)
        network = 4 * min(self.rank, width) * width  # parameters, of the one shape
        trained = Work((step, learning), solving=6.0 * network * n_each * self.batch, moved=60.0 * network) * self.steps
        return replace(simple, once=trained, update=Work(update, solving=network * n_each * len(batch)),
                       device={"the network": 4.0 * network}, preparing=20.0 * network,
                       updating=activations(lm, whole.tokens, self.n_layers),
                       disk=4.0 * n_each * len(batch) * width * len(layers))  # fmt: skip

    def update(self, lm: LM, requests: Sequence[EditRequest], prepared: Prepared, state: State) -> Update:
        """Returns the sum of the requests' edits.  Mutates nothing."""
        import torch

        from afteredit.edit.hypernetwork.network import loaded
        from afteredit.edit.hypernetwork.token_gradients import Answers, gradient_terms

        layers = self.edited_layers(lm)
        network = loaded([lm.widths(layer) for layer in layers], self.rank, prepared.tensors)
        gradients: dict[int, list[LowRank]] = {layer: [] for layer in layers}
        edits: dict[int, list[LowRank]] = {layer: [] for layer in layers}
        nll = 0.0
        for start in range(0, len(requests), FACTS_AT_ONCE):
            pairs = [(request.question, request.target_new) for request in requests[start : start + FACTS_AT_ONCE]]
            terms, nll_B = gradient_terms(lm, Answers(lm, pairs, layers))
            nll += float(nll_B.sum())
            for matrix, layer in enumerate(layers):
                keys_NF, deltas_ND = terms[layer].keys_NF, terms[layer].deltas_ND
                with torch.no_grad():
                    left_ND, right_NF = network(matrix, keys_NF, deltas_ND)
                gradients[layer].append(LowRank(deltas_ND.T, keys_NF.T))
                edits[layer].append(LowRank(left_ND.T, right_NF.T))
        changes = {lm.mlp_out_name(layer): _summed(edits[layer]) for layer in layers}
        diagnostics = {
            "loss_before": nll / len(requests),
            "gradient_norm": sum(_summed(gradients[layer]).norm() ** 2 for layer in layers) ** 0.5,
            "update_norm": sum(change.norm() ** 2 for change in changes.values()) ** 0.5,
            "n_terms": sum(change.left_Dr.shape[1] for change in changes.values()),
        }
        return Update(changes, diagnostics=diagnostics)


def _summed(changes: Sequence[LowRank]) -> LowRank:
    """Returns one change that holds the terms of all, float32 on the CPU."""
    import torch

    def joined(factors: list[Tensor]) -> Tensor:
        return torch.cat([factor.float().cpu() for factor in factors], dim=1).contiguous()

    return LowRank(joined([change.left_Dr for change in changes]), joined([change.right_Fr for change in changes]))
