"""Rounds a model's linear weights to few bits, as is done to models before they are served, group by group to nearest.

    w → lo + s · round((w − lo) / s),   s = (hi − lo) / (2^bits − 1),   lo, hi: the least and largest w of 64 in a row

Rows run along a matrix's inputs; the last group of a row may be shorter.  Numbers stay in the model's own dtype, so
what is measured is the rounding and not a kernel.  The embedding, the head and norms are left as they are.  Why no
library is called: docs/results/rounded.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers.pytorch_utils import Conv1D

from afteredit.model.lm import LM
from afteredit.model.tensors import wide
from afteredit.model.weights import is_transposed

GROUP = 64


def rounded(W_DF: Tensor, bits: int) -> Tensor:
    """Returns the matrix (D, F) rounded to `bits`, in its own dtype; computed in float32 or float64."""
    n_columns = W_DF.shape[1]
    short = -n_columns % GROUP
    values = pad(wide(W_DF)[None], (0, short), mode="replicate")[0].unflatten(1, (-1, GROUP))  # (D, groups, GROUP)
    lo, hi = values.amin(-1, keepdim=True), values.amax(-1, keepdim=True)
    step = (hi - lo) / (2**bits - 1)
    codes = ((values - lo) / torch.where(step > 0, step, 1)).round()
    return (lo + step * codes).flatten(1)[:, :n_columns].to(W_DF.dtype)


@torch.no_grad()
def round_unedited(lm: LM, bits: int) -> None:
    """Rounds, for good, every matrix of the blocks that edits leave alone."""
    edited = {id(lm.model.get_parameter(name)) for name in lm.weights.base}
    for module in (module for block in lm.anatomy.blocks for module in block.modules()):
        if isinstance(module, nn.Linear | Conv1D) and id(module.weight) not in edited:
            weight = module.weight
            weight.copy_(rounded(weight.T, bits).T if is_transposed(module) else rounded(weight, bits))


def rounding_of(lm: LM, bits: int | None) -> Callable[[Tensor], Tensor]:
    """Rounds the model but for its edited matrices, for good, and returns what rounds one of these; for None nothing is
    rounded."""
    if bits is None:
        return lambda W_DF: W_DF
    round_unedited(lm, bits)
    return lambda W_DF: rounded(W_DF, bits)
