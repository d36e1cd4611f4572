"""Matrices in the layout that the CPU multiplies fastest with.

A step of an optimisation, or of decoding, multiplies few rows with every matrix, and what a plain product spends on
laying the matrix out anew each time is then a third of it and more.  Here that is done once and kept for as long as the
matrix stays as it is; an edit changes few.  Same arithmetic, summed in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from afteredit.model.hooks import answering_by
from afteredit.model.lm import LM
from afteredit.model.weights import is_transposed

AT_MOST_GIB = 8.0  # of packed matrices; a model that needs more runs as it is
MANY_ROWS = 1024  # a hint that gives the layout good for any number of rows


class Packs:
    """A module's matrix as it was at one version, packed for the product and, once asked for, for its gradient."""

    def __init__(self, module: Any):
        self.weight, self.version, self.bias = module.weight, module.weight._version, module.bias
        W = module.weight.detach()
        self._W_out_in = W.T if is_transposed(module) else W
        self.forth = _reordered(self._W_out_in)

    @cached_property
    def back(self) -> Tensor:
        return _reordered(self._W_out_in.T)

    def are_of(self, weight: Tensor) -> bool:
        return self.weight is weight and self.version == weight._version


_kept: WeakKeyDictionary[nn.Module, Packs] = WeakKeyDictionary()


class _Product(torch.autograd.Function):
    """x Wᵀ + b, with gradients to x alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, packs: Packs) -> Tensor:
        ctx.packs = packs
        return _multiply(x, packs.forth, packs.bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _multiply(gradients[0], ctx.packs.back, None), None


@contextmanager
def packed(lm: LM) -> Iterator[None]:
    """Inside, all blocks and the head multiply with packed matrices.

    Nothing happens off the CPU, in other types than float32, and for models too large.  Raises RuntimeError at the end
    where a weight has changed meanwhile.
    """
    modules = [lm.model.get_output_embeddings(), *_matrices(lm.anatomy.blocks)]
    weights = [module.weight for module in modules]
    gib = 2 * sum(weight.numel() * weight.element_size() for weight in weights) / 2**30
    on_cpu = all(weight.dtype == torch.float32 and weight.device.type == "cpu" for weight in weights)
    can = on_cpu and torch.backends.mkldnn.is_available()
    if can and gib > AT_MOST_GIB:
        lm.capabilities.log_once(
            f"its matrices would take {gib:.1f} GiB packed, more than {AT_MOST_GIB:g}: they are left as they are"
        )
    if not can or gib > AT_MOST_GIB:
        yield
        return
    packs = [_packs(module) for module in modules]
    with ExitStack() as stack:
        for module, own in zip(modules, packs, strict=True):
            stack.enter_context(answering_by(module, _product_with(own)))
        yield
    if not all(own.are_of(weight) for own, weight in zip(packs, weights, strict=True)):
        raise RuntimeError("a weight was changed while its packed copy stood in for it")


def _matrices(blocks: Iterable[nn.Module]) -> Iterator[nn.Module]:
    for block in blocks:
        for module in block.modules():
            # by what it runs, not by its type: anatomy.py makes OPT's MLP output matrices a subclass, to the same end
            if getattr(type(module), "forward", None) in (nn.Linear.forward, Conv1D.forward):
                yield module


def _packs(module: Any) -> Packs:
    packs = _kept.get(module)
    if packs is None or not packs.are_of(module.weight):
        packs = _kept[module] = Packs(module)
    return packs


def _product_with(packs: Packs) -> Callable[[Tensor], Tensor]:
    return lambda x: _Product.apply(x, packs)


def _reordered(M: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(M.contiguous(), MANY_ROWS)


def _multiply(x: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x.contiguous(), matrix, bias, "none", [], "")
