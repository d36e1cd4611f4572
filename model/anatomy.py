"""Finds where things are inside a Hugging Face decoder, from its own structure, never from its name."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from afteredit.model.hooks import hooked
from afteredit.model.weights import matrix_shape
from afteredit.store.errors import BadInput


@dataclass(frozen=True)
class Anatomy:
    """Holds a decoder's parts, one entry per block from the lowest up."""

    decoder: nn.Module  # runs the blocks and ends with the final norm
    blocks: list[nn.Module]
    final_norm: nn.Module
    mlp_outs: list[nn.Module]  # the matrix W (D, F) that writes the MLP's result into the residual stream
    mlp_out_names: list[str]  # the full name of W among the model's parameters

    def mlp_out(self, layer: int) -> nn.Module:
        """Returns the module of a block's MLP output matrix.  Raises BadInput where there is no such block."""
        n_blocks = len(self.blocks)
        if not 0 <= layer < n_blocks:
            raise BadInput(f"layer {layer} is given, but the model has blocks 0..{n_blocks - 1}; set the layer of "
                           "the method (method.layer) or of this model's file (model.edit)")  # fmt: skip
        return self.mlp_outs[layer]

    def mlp_out_name(self, layer: int) -> str:
        """Returns the parameter name of a block's MLP output matrix.  Raises BadInput where there is no such block."""
        self.mlp_out(layer)
        return self.mlp_out_names[layer]


def find_anatomy(model: Any) -> Anatomy:
    """Returns the parts of a decoder.  Raises BadInput, naming the architecture, where it is not a plain dense one."""
    config = model.config
    name = type(model).__name__
    # BART's decoder, loaded alone, says that it is no encoder-decoder, but its config still counts encoder layers
    if getattr(config, "is_encoder_decoder", False) or getattr(config, "encoder_layers", 0):
        raise BadInput(f"{name} is an encoder-decoder; only decoder-only models can be edited here")
    lists = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m)]
    n_blocks = getattr(config, "num_hidden_layers", None)
    stacks = [(path, m) for path, m in lists if len(m) == n_blocks and "." in path]
    if len(stacks) != 1:
        raise BadInput(f"{name}: found {len(stacks)} stacks of {n_blocks} blocks; exactly one is expected")
    path: str = stacks[0][0]
    stack: Any = stacks[0][1]
    if any("expert" in child.lower() for child, _ in stack.named_modules()):
        raise BadInput(f"{name} is a mixture of experts; only dense decoders can be edited here")
    decoder = model.get_submodule(path.rpartition(".")[0])
    width = model.get_input_embeddings().embedding_dim
    matrices = [_mlp_out(block, width, f"{name}, block {i}") for i, block in enumerate(stack)]
    if _flattens(model, matrices[0][1]):
        for block, (_, module) in zip(stack, matrices, strict=True):
            _show_rows(block, module)
    return Anatomy(
        decoder=decoder,
        blocks=list(stack),
        final_norm=_final_norm(decoder, stack, name),
        mlp_outs=[module for _, module in matrices],
        mlp_out_names=[f"{path}.{i}.{child}.weight" for i, (child, _) in enumerate(matrices)],
    )


def _mlp_out(block: nn.Module, width: int, place: str) -> tuple[str, nn.Module]:
    """Returns the name in the block, and the module, of its MLP output matrix.

    That is the last matrix, in order of registration, that maps some F back to the residual width and has a sibling
    mapping the width to that F, or to 2 F where gate and up are one matrix.  Attention's output may look alike, but
    stands before the MLP.
    """
    matrices = [(name, m) for name, m in block.named_modules() if isinstance(m, nn.Linear | Conv1D)]
    for name, module in reversed(matrices):
        output, inner = matrix_shape(module)
        parent = name.rpartition(".")[0]
        siblings = [m for n, m in matrices if n.rpartition(".")[0] == parent and m is not module]
        if output == width and any(matrix_shape(m) in ((inner, width), (2 * inner, width)) for m in siblings):
            return name, module
    raise BadInput(f"{place}: no MLP output matrix of width {width} found among {[name for name, _ in matrices]}")


class _Reached(Exception):
    """Ends a forward pass at the first MLP output matrix."""


@torch.no_grad()
def _flattens(model: Any, mlp_out: nn.Module) -> bool:
    """Returns whether the MLP is run on (B·T, F), as OPT's is, and not on (B, T, F): the model is run up to its first
    MLP to see."""
    device = model.get_input_embeddings().weight.device
    if device.type == "meta":
        return False
    n_dims: list[int] = []

    def stop(_module: nn.Module, args: tuple, _kwargs: dict) -> None:
        n_dims.append(args[0].ndim)
        raise _Reached

    try:
        with hooked(before={mlp_out: stop}):
            model(input_ids=torch.zeros(1, 2, dtype=torch.long, device=device), use_cache=False)
    except _Reached:
        return n_dims[0] == 2
    raise BadInput(f"{type(model).__name__}: its first block does not run its MLP; this architecture is not supported")


def _show_rows(block: nn.Module, mlp_out: nn.Module) -> None:
    """Makes hooks on `mlp_out` see (B, T, F) and (B, T, D) from now on; the block around it still sees (B·T, D).

    Gives the module a subclass of its own class: hooks run inside `__call__`, so nothing inside it could do this.
    """
    rows: list[int] = []  # B and T of the block's latest call

    def remember(_module: Any, args: tuple) -> None:
        rows[:] = args[0].shape[:2]

    flat_class: Any = type(mlp_out)

    class InRows(flat_class):
        def __call__(self, flat: torch.Tensor) -> torch.Tensor:
            if not rows or flat.ndim != 2 or len(flat) != prod(rows):
                return super().__call__(flat)
            return super().__call__(flat.view(*rows, -1)).flatten(0, 1)

    block.register_forward_pre_hook(remember)  # stays for as long as the model does
    mlp_out.__class__ = InRows


def _final_norm(decoder: nn.Module, stack: nn.ModuleList, name: str) -> nn.Module:
    """Returns the decoder's own child, beside the blocks, that normalises."""
    norms = [m for m in decoder.children() if m is not stack and "norm" in type(m).__name__.lower()]
    if len(norms) != 1:
        raise BadInput(f"{name}: found {len(norms)} final norms beside the blocks; exactly one is expected")
    return norms[0]
