"""Keeps matrices in the layout that the CPU multiplies fastest with.

A step of an optimisation, or of decoding, multiplies few rows with every matrix, and a plain product spends a third of
its time and more on laying the matrix out anew.  Here that is done once and kept for as long as the matrix stays as it
is; an edit changes few.  The arithmetic is the same, summed in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from afteredit.model.hooks import answering_by
from afteredit.model.weights import is_transposed

AT_MOST_GIB = 8.0  # of packed matrices; a model that needs more runs as it is
MANY_ROWS = 1024  # a hint that gives the layout good for any number of rows


class PackedMatrix:
    """Holds a module's matrix at one version, packed for the product and, once needed, for its gradient."""

    def __init__(self, module: Any):
        self.weight, self.version, self.bias = module.weight, module.weight._version, module.bias
        W = module.weight.detach()
        self._W_out_in = W.T if is_transposed(module) else W
        self.for_product = _packed(self._W_out_in)

    @cached_property
    def for_gradient(self) -> Tensor:
        """The transposed matrix, packed."""
        return _packed(self._W_out_in.T)

    def is_current(self, weight: Tensor) -> bool:
        """Returns whether it was packed from `weight` as that is now."""
        return self.weight is weight and self.version == weight._version


class _Product(torch.autograd.Function):
    """x Wᵀ + b, with gradients to x alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: PackedMatrix) -> Tensor:
        ctx.matrix = matrix
        return _multiply(x, matrix.for_product, matrix.bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _multiply(gradients[0], ctx.matrix.for_gradient, None), None


class PackedWeights:
    """Packs one model's matrices the first time they are used, and again only those that have changed since."""

    def __init__(self, model: Any, blocks: Iterable[nn.Module], log_once: Callable[[str], None]):
        self._model, self._blocks, self._log_once = model, blocks, log_once
        self.matrices: dict[nn.Module, PackedMatrix] = {}

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Inside, all blocks and the head multiply with packed matrices.

        Nothing is packed off the CPU, in other types than float32, and for models too large.  Raises RuntimeError at
        the end where a weight has changed meanwhile.
        """
        modules = [self._model.get_output_embeddings(), *_matrices(self._blocks)]
        if not self._can_pack([module.weight for module in modules]):
            yield
            return
        packed = {module: self._current(module) for module in modules}
        with ExitStack() as stack:
            for module, matrix in packed.items():
                stack.enter_context(answering_by(module, _product_with(matrix)))
            yield
        if not all(matrix.is_current(module.weight) for module, matrix in packed.items()):
            raise RuntimeError("a weight was changed while its packed copy stood in for it")

    def _can_pack(self, weights: list[Tensor]) -> bool:
        on_cpu = all(weight.dtype == torch.float32 and weight.device.type == "cpu" for weight in weights)
        if not on_cpu or not torch.backends.mkldnn.is_available():
            return False
        gib = 2 * sum(weight.numel() * weight.element_size() for weight in weights) / 2**30
        if gib > AT_MOST_GIB:
            self._log_once(f"its matrices would take {gib:.1f} GiB packed, more than {AT_MOST_GIB:g}: they are left as "
                           "they are")  # fmt: skip
        return gib <= AT_MOST_GIB

    def _current(self, module: Any) -> PackedMatrix:
        matrix = self.matrices.get(module)
        if matrix is None or not matrix.is_current(module.weight):
            matrix = self.matrices[module] = PackedMatrix(module)
        return matrix


def _matrices(blocks: Iterable[nn.Module]) -> Iterator[nn.Module]:
    for block in blocks:
        for module in block.modules():
            # by what it runs, not by its type: anatomy.py gives OPT's MLP output matrices a subclass that runs the same
            if getattr(type(module), "forward", None) in (nn.Linear.forward, Conv1D.forward):
                yield module


def _product_with(matrix: PackedMatrix) -> Callable[[Tensor], Tensor]:
    return lambda x: _Product.apply(x, matrix)


def _packed(M: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(M.contiguous(), MANY_ROWS)


def _multiply(x: Tensor, packed_matrix: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x.contiguous(), packed_matrix, bias, "none", [], "")
