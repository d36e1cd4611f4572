"""A matrix's gradient as rank-one terms, one per token; and passes in which each row sees a changed matrix of its own.

For y_t = W k_t + b at token t and any loss L, ∇W L = Σ_t δ_t k_tᵀ with δ_t = ∂L/∂y_t (Mitchell et al., 2022, sec. 3.1).
Only the blocks from the lowest of these matrices up are run, from what a `Rerun` recorded; no weight is touched.

B rows, T tokens, N terms or answer tokens of all rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from afteredit.model.hooks import hooked
from afteredit.model.lm import LM
from afteredit.model.rerun import Rerun


class RecordedRows:
    """Rows of token ids, ready to be run again and again from the lowest of `layers` up."""

    def __init__(self, lm: LM, rows: Sequence[Sequence[int]], layers: Sequence[int]):
        self.lm, self.layers = lm, list(layers)
        self._lowest = min(layers)
        self._rerun = Rerun(lm, rows, [0] * len(rows), self._lowest)
        width = lm.widths(self._lowest)[0]
        n_blocks = lm.n_blocks - self._lowest
        self.n_bytes = 4 * n_blocks * len(rows) * max(map(len, rows)) * width  # what enters the blocks

    def hidden(self) -> Tensor:
        """Returns normalised hidden states (B, T, D); columns after a row's end mean nothing."""
        return self._rerun.run(self._lowest)


class Answers(RecordedRows):
    """Questions followed by their answers, joined as token ids.

    `places` (rows and columns) are where the answers' tokens are predicted; `weight_N` is each one's part in the loss
    of its answer.
    """

    def __init__(self, lm: LM, pairs: Sequence[tuple[str, str]], layers: Sequence[int]):
        prompts = [lm.tokens.question_ids(question) for question, _ in pairs]
        answers = [lm.tokens.answer_ids(answer, question) for question, answer in pairs]
        rows = [[*prompt, *answer[:-1]] for prompt, answer in zip(prompts, answers, strict=True)]
        super().__init__(lm, rows, layers)
        places = [(b, len(prompts[b]) - 1 + j, answer[j], 1 / len(answer)) for b, answer in enumerate(answers)
                  for j in range(len(answer))]  # fmt: skip
        row_N, column_N, target_N, weight_N = zip(*places, strict=True)
        self.places = torch.tensor(row_N), torch.tensor(column_N)  # whose logits predict the answers' tokens
        self._target_N, self.weight_N = torch.tensor(target_N), torch.tensor(weight_N)
        self._n_rows = len(rows)

    def outcome(self) -> tuple[Tensor, Tensor]:
        """Returns −log p of each answer (B,), nats, mean over its tokens; and whether each token is the argmax (B,)."""
        log_p_NV = self.lm.logits(self.hidden()[self.places]).log_softmax(-1)
        row_N, target_N = self.places[0].to(log_p_NV.device), self._target_N.to(log_p_NV.device)
        nll_N = -log_p_NV.gather(-1, target_N[:, None])[:, 0] * self.weight_N.to(log_p_NV)
        nll_B = nll_N.new_zeros(self._n_rows).index_add(0, row_N, nll_N)
        wrong_N = (log_p_NV.argmax(-1) != target_N).long()
        return nll_B, wrong_N.new_zeros(self._n_rows).index_add(0, row_N, wrong_N) == 0


@dataclass(frozen=True)
class GradientTerms:
    """Holds one matrix's gradients: row b's is Σ δ_n k_nᵀ over the n with rows_N[n] = b.  Zero terms are left out."""

    keys_NF: Tensor
    deltas_ND: Tensor
    rows_N: Tensor
    columns_N: Tensor  # the token's place in its row
    size: tuple[int, int]  # (B, T)

    def is_finite(self) -> bool:
        return bool(self.keys_NF.isfinite().all()) and bool(self.deltas_ND.isfinite().all())

    def by_row(self, vectors_NX: Tensor) -> Tensor:
        """Returns (B, T, X): each term's vector at its row and column, zero where there is none."""
        spread_BTX = vectors_NX.new_zeros(*self.size, vectors_NX.shape[-1])
        places = self.rows_N.to(vectors_NX.device), self.columns_N.to(vectors_NX.device)
        return spread_BTX.index_put(places, vectors_NX)


def gradient_terms(lm: LM, answers: Answers) -> tuple[dict[int, GradientTerms], Tensor]:
    """Returns per block the terms of each row's gradient of −log p(answer), and that loss before any change (B,)."""
    layers = answers.layers
    keys: dict[int, Tensor] = {}
    outputs: dict[int, Tensor] = {}

    def collecting(layer: int) -> Any:
        def hook(_module: Any, args: tuple, output: Tensor) -> Tensor:
            keys[layer] = args[0].detach()
            # nothing below the lowest block needs a gradient: there the output begins the graph
            outputs[layer] = output if output.requires_grad else output.detach().requires_grad_()
            return outputs[layer]

        return hook

    with hooked({lm.mlp_out(layer): collecting(layer) for layer in layers}), torch.enable_grad():
        nll_B, _ = answers.outcome()
        deltas = torch.autograd.grad(nll_B.sum(), [outputs[layer] for layer in layers])
    terms = {layer: _without_zeros(keys[layer], delta) for layer, delta in zip(layers, deltas, strict=True)}
    return terms, nll_B.detach()


def _without_zeros(keys_BTF: Tensor, deltas_BTD: Tensor) -> GradientTerms:
    rows_N, columns_N = ((keys_BTF != 0).any(-1) & (deltas_BTD != 0).any(-1)).nonzero(as_tuple=True)
    size = (keys_BTF.shape[0], keys_BTF.shape[1])
    return GradientTerms(keys_BTF[rows_N, columns_N], deltas_BTD[rows_N, columns_N], rows_N, columns_N, size)


@contextmanager
def each_row_changed(lm: LM, changes: Mapping[int, tuple[Tensor, Tensor]]) -> Iterator[None]:
    """Inside, row b of any pass sees W + Σ_t left[b, t] right[b, t]ᵀ at each block of `changes`.

    `changes` maps a block to (left (B, T, D), right (B, T, F)); gradients flow to both.
    """

    def adding(left_BTD: Tensor, right_BTF: Tensor) -> Any:
        def hook(_module: Any, args: tuple, output: Tensor) -> Tensor:
            left, right = left_BTD.to(output.device), right_BTF.to(output.device)
            return output + (args[0].to(right.dtype) @ right.mT @ left).to(output.dtype)

        return hook

    with hooked({lm.mlp_out(layer): adding(*factors) for layer, factors in changes.items()}):
        yield
