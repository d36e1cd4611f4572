"""Names a model in caches and run directories by all that decides what it says, unedited."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from afteredit.model.tokens import Tokens
from afteredit.store.code_version import plugin_code
from afteredit.store.field_roles import class_name
from afteredit.store.user_cache import content_hash

# fields of a config that only say where a model came from or who wrote it; its parameters have the dtype
PROVENANCE = {"_name_or_path", "_commit_hash", "transformers_version", "architectures", "auto_map", "dtype",
              "torch_dtype"}  # fmt: skip
PROBE = "It is n't . Is it ? Oh ! a , b ' c 'm 's 've 're"  # what cleaning up changes
CHUNK = 2**20  # integers hashed at once


def fingerprint_parts(model: Any, tokens: Tokens) -> dict[str, Any]:
    """Returns what decides the unedited model's answers, as plain data; its hash is the model's fingerprint.

    A run keeps the parts, so that it can say what another model differs in.
    """
    template = tokens.tokenizer.chat_template
    other_ends = sorted(tokens.end_ids - {tokens.tokenizer.eos_token_id})
    return {
        "class": class_name(type(model)),
        "code": plugin_code(type(model)),
        "config": _decisive(json.loads(json.dumps(model.config.to_dict(), default=str))),
        "attention": model.config._attn_implementation,
        "dtype": sorted({str(parameter.dtype).removeprefix("torch.") for parameter in model.parameters()}),
        "weights": _weights_hash(model),
        "tokenizer": _tokenizer_hash(tokens.tokenizer),
        "chat_template": content_hash(template),
        "chat_date": tokens.chat_date if "strftime_now" in str(template) else None,
        "start_token": tokens.tokenizer.convert_ids_to_tokens(tokens.start_ids),
        "start_ids": tokens.start_ids,
        "prompt": tokens.prompt,
        **({"end_ids": other_ends} if other_ends else {}),
    }


def _decisive(config: dict[str, Any]) -> dict[str, Any]:
    """Returns a config and the configs inside it without the fields of PROVENANCE."""
    return {
        key: _decisive(value) if isinstance(value, dict) and "model_type" in value else value
        for key, value in config.items()
        if key not in PROVENANCE
    }


def _tokenizer_hash(tokenizer: Any) -> str:
    """Returns a hash of what decides the ids of a text, and the text of ids."""
    # the part before says how the tokenizer would cut and pad a batch, which every call sets anew
    rules = tokenizer.backend_tokenizer.to_str().partition('"added_tokens"')[2]
    ways = [getattr(tokenizer, name, None) for name in ("clean_up_tokenization_spaces", "split_special_tokens")]
    ids = tokenizer.backend_tokenizer.encode(PROBE, add_special_tokens=False).ids
    text, plain = tokenizer.decode(ids), tokenizer.backend_tokenizer.decode(ids, skip_special_tokens=False)
    decoding = [text] if text != plain else []  # so that plain tokenizers keep their names
    return content_hash([type(tokenizer).__name__, rules, tokenizer.special_tokens_map, ways, *decoding])


def _weights_hash(model: nn.Module) -> str:
    """Returns a hash of the name, shape, dtype and bits of every parameter, and of every buffer that is saved."""
    digest, saved = hashlib.sha256(), model.state_dict().keys()
    tensors = [*model.named_parameters(), *((name, buffer) for name, buffer in model.named_buffers() if name in saved)]
    for name, tensor in tensors:
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        if tensor.device.type != "meta":
            digest.update(_row_hashes(tensor.detach()).numpy().tobytes())
    return digest.hexdigest()[:16]


def _row_hashes(tensor: Tensor) -> Tensor:
    """Returns an integer for each row: Σ_j b_j r_j mod 2^64, b_j being its bits, 32 at a time, and r_j fixed random
    integers.

    Integers add up to the same on every device and in every order.  Two different rows agree by chance once in 2^32;
    plain sums would agree wherever two entries have changed places or two signs have turned.
    """
    rows = tensor.reshape(len(tensor), -1) if tensor.ndim > 1 else tensor.reshape(1, -1)
    width = rows.shape[1] * rows.element_size()
    integer = torch.int32 if width % 4 == 0 else torch.int16 if width % 2 == 0 else torch.int8
    n = width // integer.itemsize
    multipliers = np.frombuffer(hashlib.shake_256(b"afteredit").digest(8 * n), dtype="<i8").copy()
    multipliers_n = torch.from_numpy(multipliers).to(tensor.device)
    chunks = rows.split(max(1, CHUNK // max(1, n)))
    return torch.cat([(chunk.contiguous().view(integer) * multipliers_n).sum(1).cpu() for chunk in chunks])
