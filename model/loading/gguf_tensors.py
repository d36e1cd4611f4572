"""Turns the tensors of a GGUF file into a model's parameters, one after another, so that memory holds few at a time."""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from afteredit.model.loading.gguf_header import Header, Stored
from afteredit.store.errors import BadInput
from afteredit.store.progress.work import working

CHUNK = 2**22  # entries dequantised at once
PLAIN = {"F64", "F32", "F16", "BF16"}


def types_in_words(header: Header) -> str:
    """Returns the types that the matrices are stored in, the most first: "Q5_0 69 %, Q8_0 31 %, dequantised"."""
    entries: Counter[str] = Counter()
    for stored in header.tensors.values():
        if len(stored.shape) > 1:  # norms and biases are left in float32 by every quantiser
            entries[stored.kind.name] += math.prod(stored.shape)
    shares = [f"{kind} {n / entries.total():.0%}".replace("%", " %") for kind, n in entries.most_common()]
    return ", ".join((shares if len(entries) > 1 else list(entries)) + ["dequantised"] * bool(entries.keys() - PLAIN))


def dequantised(stored: Stored) -> Any:
    """Returns a tensor as a NumPy array of float32.  Raises BadInput where its type cannot be read."""
    from gguf.quants import dequantize

    out = np.empty(stored.shape, dtype=np.float32)
    flat, at, n_bytes = out.reshape(-1), 0, stored.n_bytes
    rows, row = max(1, CHUNK // stored.shape[-1]), n_bytes * stored.shape[-1] // out.size
    with open(stored.file, "rb") as file:
        file.seek(stored.offset)
        while n_bytes:
            piece = np.frombuffer(file.read(min(n_bytes, rows * row)), dtype=np.uint8)
            if not len(piece):
                raise BadInput(f"{stored.file} has become shorter while it was read; give it again")
            n_bytes -= len(piece)
            try:
                kind = stored.kind.name
                values = piece.view(np.float64) if kind == "F64" else dequantize(piece.reshape(-1, row), stored.kind)
            except NotImplementedError:
                raise BadInput(f"{stored.file} holds weights as {stored.kind.name}, which cannot be dequantised; give "
                               "a file of another type") from None  # fmt: skip
            flat[at : at + values.size] = values.reshape(-1)
            at += values.size
    return out


class Conversion:
    """Knows which tensors become which parameters, by the tables of transformers and of the package gguf."""

    def __init__(self, header: Header, settings: dict[str, Any], file: str):
        """Raises BadInput where the file lacks parameters of the model, or holds tensors that it has no place for."""
        from transformers import AutoConfig, AutoModelForCausalLM
        from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor

        settings = dict(settings)
        self.config = AutoConfig.for_model(settings.pop("model_type"), **settings)
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(self.config, dtype=torch.float32)
        self.config.architectures, self.config.dtype = [type(model).__name__], "float32"
        architecture = header.metadata["general.architecture"]
        self._processor = TENSOR_PROCESSORS.get(architecture, TensorProcessor)(settings)
        names = _names(architecture, self.config.num_hidden_layers, [name for name, _ in model.named_parameters()])
        tensors = {name: stored for name, stored in header.tensors.items() if name != "rope_freqs.weight"}
        surplus = sorted(tensors.keys() - names.keys())
        lacking = {name for name, _ in model.named_parameters()} - {names[name] for name in tensors.keys() & names}
        if surplus or lacking:
            what = f"holds {surplus[0]!r}, which has no place in" if surplus else f"lacks {min(lacking)} of"
            raise BadInput(f"{file} {what} the {self.config.model_type} that its metadata describe; give another file")
        self.sources = {names[name]: (name, stored) for name, stored in tensors.items()}
        self.shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
        for name, (source, stored) in self.sources.items():
            shape = self.shapes[name]
            if stored.shape not in (shape, shape[::-1]):
                raise BadInput(f"{file}: {source} is {stored.shape}, but the metadata make {name} {shape}")

    def save(self, folder: Path) -> None:
        """Writes config.json and model.safetensors, in float32 and one parameter after another: safetensors' own
        function needs all of them at once, and copies them."""
        self.config.save_pretrained(folder)
        described: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name in self.sources:
            start, end = end, end + 4 * math.prod(self.shapes[name])
            described[name] = {"dtype": "F32", "shape": self.shapes[name], "data_offsets": [start, end]}
        text = json.dumps(described).encode()
        text += b" " * (-len(text) % 8)
        with open(folder / "model.safetensors", "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            with working("tensors", len(self.sources)) as work:
                for name in self.sources:
                    self._parameter(name).tofile(file)
                    work.done += 1

    def _parameter(self, name: str) -> Any:
        source, stored = self.sources[name]
        values = dequantised(stored)
        if source != "output.weight":  # the processors take its name for attn_output.weight
            values = self._processor.process(values, source, tensor_key_mapping={}, parsed_parameters={}).weights
        if values.shape != self.shapes[name]:
            raise BadInput(f"{stored.file}: {source} becomes {values.shape}, but {name} is {self.shapes[name]}")
        return values.astype("<f4", copy=False)


def _names(architecture: str, n_blocks: int, parameters: list[str]) -> dict[str, str]:
    """Returns the parameters by llama.cpp's names of them."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    (kind,) = [kind for kind, name in MODEL_ARCH_NAMES.items() if name == architecture]
    known, names = get_tensor_name_map(kind, n_blocks), {}
    for parameter in parameters:
        module, _, leaf = parameter.rpartition(".")
        names[f"{known.get_name(module)}.{leaf}"] = parameter
    return names
