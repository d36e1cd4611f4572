"""Where things are inside a Hugging Face decoder, found from its own structure, never from its name."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from afteredit.store.errors import BadInput


@dataclass(frozen=True)
class Anatomy:
    decoder: nn.Module  # what runs the blocks and ends with the final norm
    blocks: list[nn.Module]
    final_norm: nn.Module
    mlps: list[nn.Module | None]  # per block, what W is the last part of; None where that is the block itself
    mlp_outs: list[nn.Module]  # per block, the matrix W (D, F) that writes the MLP's result into the residual stream
    mlp_out_names: list[str]  # per block, the full name of W among the model's parameters


def find_anatomy(model: Any) -> Anatomy:
    """Raises BadInput, naming the architecture, where the structure is not that of a plain dense decoder."""
    config = model.config
    name = type(model).__name__
    # BART's decoder, loaded alone, says that it is none, but its config still counts the encoder's layers
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
    found = [_mlp_out(block, width, f"{name}, block {i}") for i, block in enumerate(stack)]
    if _flattens(model, found[0][1]):
        for block, (_, module) in zip(stack, found, strict=True):
            _show_rows(block, module)
    return Anatomy(
        decoder=decoder,
        blocks=list(stack),
        final_norm=_final_norm(decoder, stack, name),
        mlps=[_parent(block, child) for block, (child, _) in zip(stack, found, strict=True)],
        mlp_outs=[module for _, module in found],
        mlp_out_names=[f"{path}.{i}.{child}.weight" for i, (child, _) in enumerate(found)],
    )


def is_transposed(module: nn.Module) -> bool:
    """GPT-2's Conv1D stores W as (F, D), Linear as (D, F): told by the type, since square matrices look alike."""
    return isinstance(module, Conv1D)


def matrix_shape(module: nn.Module) -> tuple[int, int]:
    """(output, input) widths, however the matrix is stored."""
    shape: Any = module.weight.shape
    rows, columns = shape
    return (columns, rows) if is_transposed(module) else (rows, columns)


def _mlp_out(block: nn.Module, width: int, place: str) -> tuple[str, nn.Module]:
    """The last matrix of the block, in order of registration, that maps some F back to the residual width and has a
    sibling mapping the width to that F, or to 2 F where gate and up are one matrix.  Attention's output may look alike,
    but stands before the MLP."""
    matrices = [(name, m) for name, m in block.named_modules() if isinstance(m, nn.Linear | Conv1D)]
    for name, module in reversed(matrices):
        output, inner = matrix_shape(module)
        parent = name.rpartition(".")[0]
        siblings = [m for n, m in matrices if n.rpartition(".")[0] == parent and m is not module]
        if output == width and any(matrix_shape(m) in ((inner, width), (2 * inner, width)) for m in siblings):
            return name, module
    raise BadInput(f"{place}: no MLP output matrix of width {width} found among {[name for name, _ in matrices]}")


def _parent(block: nn.Module, child: str) -> nn.Module | None:
    parent = child.rpartition(".")[0]
    return block.get_submodule(parent) if parent else None


class _Seen(Exception):
    """Ends a forward pass at the first MLP output matrix."""


@torch.no_grad()
def _flattens(model: Any, mlp_out: nn.Module) -> bool:
    """Is the MLP run on (B·T, F), as OPT's, and not on (B, T, F)?  Asked of the model itself, up to its first MLP."""
    device = model.get_input_embeddings().weight.device
    if device.type == "meta":
        return False
    dims: list[int] = []

    def look(_module: Any, args: tuple) -> None:
        dims.append(args[0].ndim)
        raise _Seen

    hook = mlp_out.register_forward_pre_hook(look)
    try:
        model(input_ids=torch.zeros(1, 2, dtype=torch.long, device=device), use_cache=False)
    except _Seen:
        return dims[0] == 2
    finally:
        hook.remove()
    raise BadInput(f"{type(model).__name__}: its first block does not run its MLP; this architecture is not supported")


def _show_rows(block: nn.Module, mlp_out: nn.Module) -> None:
    """Hooks on `mlp_out` see (B, T, F) and (B, T, D) from here on; the block around it goes on seeing (B·T, D).

    Gives the module a subclass of its own class: hooks run inside `__call__`, so nothing inside could do it.
    """
    rows: list[int] = []  # B and T of the block's latest call

    def remember(_module: Any, args: tuple) -> None:
        rows[:] = args[0].shape[:2]

    own: Any = type(mlp_out)

    class InRows(own):
        def __call__(self, flat: torch.Tensor) -> torch.Tensor:
            if not rows or flat.ndim != 2 or len(flat) != prod(rows):
                return super().__call__(flat)
            return super().__call__(flat.view(*rows, -1)).flatten(0, 1)

    block.register_forward_pre_hook(remember)
    mlp_out.__class__ = InRows


def _final_norm(decoder: nn.Module, stack: nn.ModuleList, name: str) -> nn.Module:
    """The decoder's own child, behind the blocks, that normalises."""
    children = list(decoder.children())
    behind = children[[child is stack for child in children].index(True) + 1 :]
    before = children[: [child is stack for child in children].index(True)]
    norms = [m for m in behind + before if "norm" in type(m).__name__.lower()]
    if len(norms) != 1:
        raise BadInput(f"{name}: found {len(norms)} final norms beside the blocks; exactly one is expected")
    return norms[0]
