"""UltraEdit: a batch is one ridge regression on gradients that are normalised over all edits (Gu et al., 2505.14679).

    Δᵀ = (HᵀH + I)⁻¹ Hᵀ V,   v_t = −η |ĥ_t|² ĝ_t,   x̂ = (x − mean) / std over the tokens of all edits so far

h_t is the key (the input of an MLP output matrix) where token t of an answer is predicted, g_t the gradient of
−log p(answer) by the matrix's output there; H and V hold one row per answer token of the batch.  No subject is needed,
no value is optimised and no second moment kept: an edit is one forward and one backward pass, and what is remembered
are the number, the means and the squared deviations of [h; g].  In float64, by factors: Δ = Vᵀ (H Hᵀ + I)⁻¹ H.
One set of statistics serves all edited matrices of one shape, and holds the batch itself before it is normalised, as in
the code (XiaojieGu/UltraEdit at 0beb222; EasyEdit's ULTRAEDIT.py has the same formulas).

Departures from it:
- MLP output matrices alone are edited, as published for GPT-J (blocks 18 to 26 of 28), Mistral (29 and 30 of 32) and
  Phi-4 (30 to 38 of 40).  Its variants for Llama 3 (gates of 11 to 15, up-projections of 18 to 24) and Qwen 2.5 (both,
  18 to 26) are not taken.  Where no block is known for a model, the nine up to the last but one are, as in the first.
- The squared deviations are exact; there those of each mini-batch come n / (n − 1) times too large, and NaN for one
  token (StableEdit's code corrects this).
- An answer's loss is the sum over its tokens; there it is the mean over all tokens of a mini-batch, a factor that the
  normalisation takes out where mini-batches have as many tokens.
- A turn of 100 facts is `batch_size=100`.  The smaller the first batch, the less do its statistics say.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from afteredit.edit.method import Given, Method, Prepared, check_layers, check_numbers
from afteredit.edit.request import EditRequest
from afteredit.edit.update import LowRank, State, Update
from afteredit.model.costs.work import Cost, Work, activations

if TYPE_CHECKING:
    from torch import Tensor

    from afteredit.model.lm import LM

log = logging.getLogger(__name__)

FACTS_AT_ONCE = 32  # facts whose gradients are computed at once: bounds the memory
EPS = 2.0**-23  # of float32, as in the code


@dataclass(frozen=True)
class UltraEdit(Method):
    layers: list[int] | None = None  # blocks whose MLP output matrices are edited; None: nine up to the last but one
    learning_rate: float = 1e-6  # η
    ridge: float = 1.0  # on HᵀH

    def __post_init__(self) -> None:
        check_layers(self.layers)
        check_numbers(self, learning_rate="above 0", ridge="above 0")

    def edited(self, lm: LM) -> list[str]:
        return [lm.mlp_out_name(layer) for layer in self.edited_layers(lm)]

    def edited_layers(self, lm: LM) -> list[int]:
        """Returns the blocks whose MLP output matrices are edited, lowest first."""
        last = max(0, lm.n_blocks - 2)
        return sorted(self.layers) if self.layers else list(range(max(0, last - 8), last + 1))

    def prepare(self, lm: LM, given: Given) -> Prepared:
        if self.layers is None:
            log.warning("no edit layers are known for this model: blocks %s of %d are used (nine up to the last but "
                        "one); set method.layers to choose", self.edited_layers(lm), lm.n_blocks)  # fmt: skip
        return Prepared()

    def cost(self, lm: LM, batch: Sequence[EditRequest], together: int) -> Cost:
        simple, layers = super().cost(lm, batch, together), self.edited_layers(lm)
        (whole,), width = simple.update.passes, sum(lm.widths(layers[0]))
        back, n_answer = lm.n_blocks - min(layers), whole.logits
        solving = len(layers) * (n_answer**2 * width + n_answer**3 / 3.0)
        at_once = whole.tokens * min(1.0, FACTS_AT_ONCE / len(batch))
        passes = replace(whole, logits=0, backward=0.0), replace(whole, blocks=back, backward=back)
        return replace(simple, update=Work(passes, solving=solving),
                       updating=activations(lm, at_once, back),
                       disk=4.0 * n_answer * width * len(layers))  # fmt: skip

    def update(self, lm: LM, requests: Sequence[EditRequest], prepared: Prepared, state: State) -> Update:
        """Returns the change that writes a batch; it adds the statistics of the batch's tokens.  Mutates nothing."""
        tokens, loss = _answer_tokens(lm, requests, self.edited_layers(lm))
        by_shape: dict[str, list[Tensor]] = {}
        for layer, (keys_NF, gradients_ND) in tokens.items():
            by_shape.setdefault(_shape(lm, layer), []).append(_joined(keys_NF, gradients_ND))
        adds = {name: part for shape, rows in by_shape.items() for name, part in statistics(shape, rows).items()}
        so_far, changes = with_statistics_added(state, adds), {}
        for layer, (keys_NF, gradients_ND) in tokens.items():
            normal_NX = normalised(_joined(keys_NF, gradients_ND), so_far, _shape(lm, layer))
            changes[lm.mlp_out_name(layer)] = self._change(keys_NF, normal_NX)
        diagnostics = {
            "loss_before": loss,
            "n_tokens": float(len(keys_NF)),
            "update_norm": sum(change.norm() ** 2 for change in changes.values()) ** 0.5,
        }
        return Update(changes, adds, diagnostics)

    def _change(self, keys_NF: Tensor, normal_NX: Tensor) -> LowRank:
        """Returns Vᵀ (H Hᵀ + ridge · I)⁻¹ H, float32; `normal_NX` holds ĥ and ĝ side by side."""
        import torch

        F = keys_NF.shape[1]
        values_ND = -self.learning_rate * normal_NX[:, :F].square().sum(1, keepdim=True) * normal_NX[:, F:]
        gram_NN = keys_NF @ keys_NF.T + self.ridge * torch.eye(len(keys_NF), dtype=keys_NF.dtype)
        left_DN = torch.linalg.solve(gram_NN, values_ND).T
        return LowRank(left_DN.float().contiguous(), keys_NF.T.float().contiguous())

    def extend(self, state: State, update: Update, prepared: Prepared) -> State:
        """Returns the state with the update's tokens in its statistics."""
        return with_statistics_added(state, update.adds)


def statistics(shape: str, rows: Sequence[Tensor]) -> dict[str, Tensor]:
    """Returns the number of all rows, their mean and the sums of their squared deviations from it, float64."""
    import torch

    rows_NX = torch.cat(list(rows))
    mean_X = rows_NX.mean(0)
    n = torch.tensor(float(len(rows_NX)), dtype=torch.float64)
    return {f"n/{shape}": n, f"mean/{shape}": mean_X, f"squares/{shape}": (rows_NX - mean_X).square().sum(0)}


def with_statistics_added(state: State, adds: Mapping[str, Tensor]) -> State:
    """Returns the state of all tokens so far and those of `adds`, by the parallel formula of Chan et al. (1979)."""
    joined = dict(state)
    for shape in (name.removeprefix("n/") for name in adds if name.startswith("n/")):
        n_new, mean_X, squares_X = (adds[f"{part}/{shape}"] for part in ("n", "mean", "squares"))
        if f"n/{shape}" in state:
            n_old, old_mean_X, old_squares_X = (state[f"{part}/{shape}"] for part in ("n", "mean", "squares"))
            n, moved_X = n_old + n_new, mean_X - old_mean_X
            mean_X = old_mean_X + moved_X * n_new / n
            squares_X = old_squares_X + squares_X + moved_X.square() * n_old * n_new / n
            n_new = n
        joined |= {f"n/{shape}": n_new, f"mean/{shape}": mean_X, f"squares/{shape}": squares_X}
    return joined


def normalised(rows_NX: Tensor, state: State, shape: str) -> Tensor:
    """Returns the rows less the mean of all tokens so far, in multiples of their standard deviation."""
    std_X = (state[f"squares/{shape}"] / (state[f"n/{shape}"] - 1 + EPS)).sqrt()
    return (rows_NX - state[f"mean/{shape}"]) / (std_X + EPS)


def _answer_tokens(
    lm: LM, requests: Sequence[EditRequest], layers: Sequence[int]
) -> tuple[dict[int, tuple[Tensor, Tensor]], float]:
    """Returns by block the keys (N, F) and gradients (N, D) where answer tokens are predicted, float64 on the CPU, and
    the facts' mean loss."""
    import torch

    from afteredit.edit.hypernetwork.token_gradients import Answers, gradient_terms

    keys: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    gradients: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    loss = 0.0
    for start in range(0, len(requests), FACTS_AT_ONCE):
        pairs = [(request.question, request.target_new) for request in requests[start : start + FACTS_AT_ONCE]]
        answers = Answers(lm, pairs, layers)
        terms, nll_B = gradient_terms(lm, answers)
        loss += float(nll_B.sum()) / len(requests)
        for layer in layers:
            keys[layer].append(terms[layer].by_row(terms[layer].keys_NF).cpu()[answers.places].double())
            deltas_ND = terms[layer].by_row(terms[layer].deltas_ND).cpu()[answers.places].double()
            gradients[layer].append(deltas_ND / answers.weight_N.double()[:, None])  # sums, not means, over tokens
    return {layer: (torch.cat(keys[layer]), torch.cat(gradients[layer])) for layer in layers}, loss


def _joined(keys_NF: Tensor, gradients_ND: Tensor) -> Tensor:
    import torch

    return torch.cat([keys_NF, gradients_ND], dim=1)


def _shape(lm: LM, layer: int) -> str:
    """Returns the name under which the statistics of matrices of this one's shape are kept."""
    return "x".join(map(str, lm.widths(layer)))
