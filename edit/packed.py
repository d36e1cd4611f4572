"""Frozen matrices in the layout that the CPU multiplies fastest with.

A step of an optimisation, or of decoding, multiplies few rows with every matrix, and what a plain product spends on
laying the matrix out anew each time is then a third of it and more.  Here that is done once: for an optimisation, in
which no weight changes, with the gradient's product too (`packed`); for measuring, for all but the matrices that edits
change (`PackedUnedited`).  Same arithmetic, summed in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from afteredit.edit.anatomy import is_transposed
from afteredit.edit.lm import LM, answering_by

AT_MOST_GIB = 8.0  # of packed matrices; a model that needs more runs as it is
MANY_ROWS = 1024  # a hint that gives the layout good for any number


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
    if not _worth_it(modules, copies=2):
        yield
        return
    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(answering_by(module, _product_with(module, n_rows)))
        yield


class PackedUnedited:
    """What measuring multiplies with: every matrix but the blocks' MLP outputs, packed once, when first asked for.

    MLP outputs are what edits change.  All of them are left out, whichever are edited, so that one model gives the same
    bits under every method; nothing is packed where an edit has touched another matrix.
    """

    def __init__(self, lm: LM):
        self.lm = lm
        self._products: list[tuple[nn.Module, Callable[[Tensor], Tensor]]] | None = None

    @contextmanager
    def used(self) -> Iterator[None]:
        """Inside, without gradients, the model multiplies with them."""
        if not self.lm.base.keys() <= set(self.lm.anatomy.mlp_out_names):
            yield
            return
        with ExitStack() as stack:
            for module, product in self._packed():
                stack.enter_context(answering_by(module, product))
            yield

    def _packed(self) -> list[tuple[nn.Module, Callable[[Tensor], Tensor]]]:
        if self._products is None:
            outputs = {self.lm.mlp_out(layer) for layer in range(self.lm.n_blocks)}
            modules = [self.lm.model.get_output_embeddings(), *_matrices(self.lm.anatomy.blocks)]
            modules = [module for module in modules if module not in outputs]
            worth_it = _worth_it(modules, copies=1)
            self._products = [(module, _forward_with(module)) for module in modules] if worth_it else []
        return self._products


def _worth_it(modules: Sequence[nn.Module], copies: int) -> bool:
    weights = [cast(Tensor, module.weight) for module in modules]
    gib = copies * sum(weight.numel() * weight.element_size() for weight in weights) / 2**30
    fits = all(weight.dtype == torch.float32 and weight.device.type == "cpu" for weight in weights)
    return fits and gib <= AT_MOST_GIB and torch.backends.mkldnn.is_available()


def _matrices(blocks: Iterable[nn.Module]) -> Iterator[nn.Module]:
    for block in blocks:
        for module in block.modules():
            if type(module) is nn.Linear or is_transposed(module):
                yield module


def _product_with(module: nn.Module, n_rows: int) -> Callable[[Tensor], Tensor]:
    W_out_in, bias = _weights(module)
    forth, back = (_reordered(M, n_rows) for M in (W_out_in, W_out_in.T))
    return lambda x: _Product.apply(x, forth, back, bias)


def _forward_with(module: nn.Module) -> Callable[[Tensor], Tensor]:
    W_out_in, bias = _weights(module)
    forth = _reordered(W_out_in, MANY_ROWS)
    return lambda x: _multiply(x, forth, bias)


def _weights(module: Any) -> tuple[Tensor, Tensor | None]:
    W = module.weight.detach()
    return W.T if is_transposed(module) else W, None if module.bias is None else module.bias.detach()


def _reordered(M: Tensor, n_rows: int) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(M.contiguous(), n_rows)


def _multiply(x: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x.contiguous(), matrix, bias, "none", [], "")
