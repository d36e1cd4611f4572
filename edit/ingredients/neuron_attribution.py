"""Knowledge attribution: the part of each MLP neuron in an answer (Dai et al., ACL 2022, "Knowledge Attribution").

    attr_i = w̄_i ∫₀¹ ∂P(answer token | w = α w̄) / ∂w_i dα

w̄ is one block's key (the input of its MLP output matrix W) at the position that predicts the answer token; all its
entries are scaled together, so that the attributions of a block sum to P(w̄) − P(0).  An answer of several tokens is
attributed token by token, each after the ones before it, and summed.
Scaling the key to α w̄ there is adding (α − 1) W w̄ to the MLP's output (the bias stays), so ∂P/∂w = Wᵀ ∂P/∂offset, and
one `Rerun` from the lowest block serves every block: each row is computed again at one position alone.
Departures: midpoints, where the authors' code (Hunter-DDM/knowledge-neurons) takes the left end of each step; their
answers are one [MASK] token.  A bug not taken over: EasyEdit's points are linspace(0, 1, steps), so that its `steps: 1`
for Llama sees α = 0 alone, the gradient at silenced neurons, which is no integral.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from afteredit.model.lm import LM
from afteredit.model.rerun import Rerun


@dataclass(frozen=True)
class Attribution:
    """The attributions of one prompt and answer, by block: `scores_F` (F,) on the CPU, and `gains`, P(w̄) − P(0), to
    which the scores of a block should sum."""

    scores_F: list[Tensor]
    gains: list[float]

    def is_finite(self) -> bool:
        return all(bool(scores_F.isfinite().all()) for scores_F in self.scores_F)

    def completeness_error(self) -> float:
        """Returns |sum of scores − gain| / |gain| of the block with the largest |gain|; 0 where no block moves P."""
        layer = max(range(len(self.gains)), key=lambda layer: abs(self.gains[layer]))
        gain = self.gains[layer]
        return abs(float(self.scores_F[layer].double().sum()) - gain) / abs(gain) if gain else 0.0


def attribute(lm: LM, question: str, answer: Sequence[int], steps: int) -> Attribution:
    """Returns the attributions of every block's neurons for the token ids `answer` after `question`.  Mutates nothing.

    Rows are the answer's N tokens times M values of α: `steps` midpoints, then 0 and 1 for the gains.
    """
    ids = lm.tokens.question_ids(question)
    alphas_M = torch.tensor([*((m + 0.5) / steps for m in range(steps)), 0.0, 1.0], dtype=torch.float64)
    n, m = len(answer), len(alphas_M)
    rows = [[*ids, *answer[:i]] for i in range(n) for _ in range(m)]
    rerun = Rerun(lm, rows, [len(row) - 1 for row in rows], 0)
    tokens_B = torch.tensor(answer).repeat_interleave(m)
    scores_F, gains = [], []
    for layer in range(lm.n_blocks):
        W_DF = lm.weights.W(lm.mlp_out_name(layer))
        keys_NF = rerun.keys_BF[layer][::m].to(W_DF)
        offset_NMD = (alphas_M.to(W_DF) - 1)[:, None] * (keys_NF @ W_DF.T)[:, None]
        p_B, gradient_BD = _probability(lm, rerun, layer, offset_NMD.flatten(0, 1), tokens_B)
        gradient_ND = gradient_BD.unflatten(0, (n, m))[:, :steps].mean(1)
        scores_F.append((keys_NF * (gradient_ND @ W_DF)).sum(0).cpu())
        *_, at_0_N, at_1_N = p_B.unflatten(0, (n, m)).unbind(1)
        gains.append(float((at_1_N - at_0_N).sum()))
    return Attribution(scores_F, gains)


def _probability(lm: LM, rerun: Rerun, layer: int, offset_BD: Tensor, tokens_B: Tensor) -> tuple[Tensor, Tensor]:
    """Returns P (B,) float32 of each row's token under its offset to the block's MLP output, and ∂P/∂offset (B, D)."""
    offset_BD = offset_BD.requires_grad_()
    with torch.enable_grad():
        log_p_BV = lm.logits(rerun.hidden(offset_BD, layer)[:, 0]).log_softmax(-1)
        log_p_B = log_p_BV.gather(-1, tokens_B.to(log_p_BV.device)[:, None])[:, 0]
    (gradient_BD,) = torch.autograd.grad(log_p_B.sum(), offset_BD)
    p_B = log_p_B.detach().exp()
    # ∂P = P ∂ log P, since float16 would lose the gradient of a small P
    return p_B, p_B.to(gradient_BD)[:, None] * gradient_BD
