"""Finds where things are inside a Hugging Face decoder, from its own structure, never from its name."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from afteredit.model.hooks import After, hooked
from afteredit.model.weights import matrix_shape
from afteredit.store.errors import BadInput


@dataclass(frozen=True)
class Anatomy:
    """Holds a decoder's parts, one entry per block from the lowest up."""

    decoder: nn.Module  # runs the blocks and what stands after them
    blocks: list[nn.Module]
    after_blocks: nn.Module  # the final norm; in OPT-350m a projection; nothing (Identity) where a decoder has neither
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
    name = type(model).__name__
    # BART's decoder, loaded alone, says that it is no encoder-decoder, but its config still counts encoder layers
    if getattr(model.config, "is_encoder_decoder", False) or getattr(model.config, "encoder_layers", 0):
        raise BadInput(f"{name} is an encoder-decoder; only decoder-only models can be edited here")
    config = text_config(model.config, name)
    path, decoder, stack = _stack(model, config.num_hidden_layers, name)
    if any("expert" in child.lower() for child, _ in stack.named_modules()):
        raise BadInput(f"{name} is a mixture of experts; only dense decoders can be edited here")
    matrices = [_mlp_out(block, config.hidden_size, f"{name}, block {i}") for i, block in enumerate(stack)]
    flattens, after_blocks = _watch_a_pass(model, decoder, stack, matrices[0][1])
    if flattens:
        for block, (_, module) in zip(stack, matrices, strict=True):
            _show_rows(block, module)
    return Anatomy(
        decoder=decoder,
        blocks=list(stack),
        after_blocks=after_blocks,
        mlp_outs=[module for _, module in matrices],
        mlp_out_names=[f"{path}.{i}.{child}.weight" for i, (child, _) in enumerate(matrices)],
    )


@torch.no_grad()
def attention_outs(model: Any, blocks: list[nn.Module]) -> list[nn.Module] | None:
    """Returns the matrix of each block that writes attention's result: of the matrices inside the block's attention
    that give the residual width, the one that is run last.  Runs the model on two tokens.

    None where a block has no such matrix, as in models that mix tokens in other ways too.
    """
    width = text_config(model.config, type(model).__name__).hidden_size
    inside = [next((m for m in block.modules() if "attention" in type(m).__name__.lower()), None) for block in blocks]
    places: dict[nn.Module, int] = {matrix: index for index, attention in enumerate(inside) if attention is not None
              for matrix in attention.modules()
              if isinstance(matrix, nn.Linear | Conv1D) and matrix_shape(matrix)[0] == width}  # fmt: skip
    last: dict[int, nn.Module] = {}

    def note(module: nn.Module, _args: tuple, output: torch.Tensor) -> None:
        if output.ndim == 3:
            last[places[module]] = module

    ids_BT = torch.zeros(1, 2, dtype=torch.long, device=model.get_input_embeddings().weight.device)
    with hooked({matrix: note for matrix in places}):
        model(input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT), use_cache=False)
    return [last[index] for index in range(len(blocks))] if len(last) == len(blocks) else None


def text_config(config: Any, name: str) -> Any:
    """Returns the part of a config that describes the text model: all of it, but for multimodal models.

    Raises BadInput where that is not clear, or where it tells no number of blocks and no width.
    """
    try:
        text = config.get_text_config(decoder=True)
    except ValueError:
        raise BadInput(f"{name} holds several text models; only single decoders can be edited here") from None
    if not all(isinstance(getattr(text, key, None), int) for key in ("num_hidden_layers", "hidden_size")):
        raise BadInput(f"{name}: its config states no single num_hidden_layers and hidden_size; this architecture is "
                       "not supported")  # fmt: skip
    return text


def _stack(model: Any, n_blocks: int, name: str) -> tuple[str, nn.Module, nn.ModuleList]:
    """Returns the path of the list of blocks, the decoder around it, and the list.

    The text model's blocks stand beside its token embedding; a vision tower's, which may be as many, do not.
    """
    embedding, found = model.get_input_embeddings(), []
    for path, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == n_blocks and "." in path:
            decoder = model.get_submodule(path.rpartition(".")[0])
            if any(part is embedding for part in decoder.modules()):
                found.append((path, decoder, module))
    if len(found) != 1:
        raise BadInput(f"{name}: found {len(found)} lists of {n_blocks} blocks beside the token embedding; exactly one "
                       "is expected, as in a plain decoder; this architecture is not supported")  # fmt: skip
    return found[0]


def _mlp_out(block: nn.Module, width: int, place: str) -> tuple[str, nn.Module]:
    """Returns the name in the block, and the module, of its MLP output matrix.

    That is the last matrix, in order of registration, that maps some F back to the residual width and has a sibling
    mapping the width to that F, or to 2 F where gate and up are one matrix.  Attention's output may look alike, but
    stands beside three matrices that read the width, or before the MLP; Mamba's beside the convolution that mixes its
    tokens.
    """
    matrices = [(name, m) for name, m in block.named_modules() if isinstance(m, nn.Linear | Conv1D)]
    for name, module in reversed(matrices):
        output, inner = matrix_shape(module)
        parent = name.rpartition(".")[0]
        siblings = [m for n, m in matrices if n.rpartition(".")[0] == parent and m is not module]
        n_readers = sum(matrix_shape(m)[1] == width for m in siblings)  # of queries, keys and values
        mixes_tokens = n_readers > 2 or any(isinstance(m, nn.Conv1d) for m in block.get_submodule(parent).children())
        if (
            output == width
            and not mixes_tokens
            and any(matrix_shape(m) in ((inner, width), (2 * inner, width)) for m in siblings)
        ):
            return name, module
    raise BadInput(f"{place}: no MLP output matrix of width {width} found among {[name for name, _ in matrices]}")


@torch.no_grad()
def _watch_a_pass(model: Any, decoder: nn.Module, blocks: nn.ModuleList, mlp_out: nn.Module) -> tuple[bool, nn.Module]:
    """Runs the model on two tokens.  Returns whether the MLP is run on (B·T, F), as OPT's is, and not on (B, T, F); and
    what the decoder runs after its blocks.

    A model on the meta device is not run.
    """
    device = model.get_input_embeddings().weight.device
    if device.type == "meta":
        return False, nn.Identity()
    n_dims: list[int] = []
    called: list[nn.Module] = []
    watched = [blocks[-1], *(child for child in decoder.children() if child is not blocks)]
    hooks: dict[nn.Module, After] = {module: lambda module, _a, _o: called.append(module) for module in watched}
    with hooked(hooks, before={mlp_out: lambda _m, args, _k: n_dims.append(args[0].ndim)}):
        ids_BT = torch.zeros(1, 2, dtype=torch.long, device=device)
        model(input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT), use_cache=False)
    if not n_dims or blocks[-1] not in called:
        raise BadInput(f"{type(model).__name__}: its first block does not run its MLP, or its last block is not run on "
                       "plain text; this architecture is not supported")  # fmt: skip
    after = called[called.index(blocks[-1]) + 1 :]
    return n_dims[0] == 2, after[0] if len(after) == 1 else nn.Sequential(*after)


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
