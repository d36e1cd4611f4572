"""Frozen matrices in the layout that the CPU multiplies fastest with, for as long as an optimisation runs.

A step of an optimisation multiplies few rows with every matrix, and what a plain product spends on laying the matrix
out anew each time is then a third of it.  Here that is done once, for the product and for its gradient.  Same
arithmetic, summed in another order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from afteredit.edit.anatomy import is_transposed
from afteredit.edit.lm import LM, answering_by

AT_MOST_GIB = 8.0  # of packed matrices; a model that needs more runs as it is


class _Product(torch.autograd.Function):
    """x Wᵀ + b, with gradients to x alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, forth: Tensor, back: Tensor, bias: Tensor | None) -> Tensor:
        ctx.back = back
        return _multiply(x, forth, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return _multiply(gradients[0], ctx.back, None), None, None, None


@contextmanager
def packed(lm: LM, first_block: int, n_rows: int) -> Iterator[None]:
    """Inside, blocks from `first_block` up and the head multiply with packed matrices; their weights must not change.

    `n_rows`: rows of a product, a hint.  Nothing happens off the CPU, in other types than float32, and for models too
    large.
    """
    modules = [lm.model.get_output_embeddings(), *_matrices(lm.anatomy.blocks[first_block:])]
    weights = [module.weight for module in modules]
    gib = 2 * sum(weight.numel() * weight.element_size() for weight in weights) / 2**30
    fits = all(weight.dtype == torch.float32 and weight.device.type == "cpu" for weight in weights)
    if not fits or gib > AT_MOST_GIB or not torch.backends.mkldnn.is_available():
        yield
        return
    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(answering_by(module, _product_with(module, n_rows)))
        yield


def _matrices(blocks: Iterable[nn.Module]) -> Iterator[nn.Module]:
    for block in blocks:
        for module in block.modules():
            if type(module) is nn.Linear or is_transposed(module):
                yield module


def _product_with(module: nn.Module, n_rows: int) -> Any:
    W = module.weight.detach()
    W_out_in = W.T if is_transposed(module) else W
    forth, back = (torch.ops.mkldnn._reorder_linear_weight(M.contiguous(), n_rows) for M in (W_out_in, W_out_in.T))
    bias = None if module.bias is None else module.bias.detach()
    return lambda x: _Product.apply(x, forth, back, bias)


def _multiply(x: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x.contiguous(), matrix, bias, "none", [], "")
