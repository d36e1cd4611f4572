"""Makes a model's config from the metadata of a GGUF file, by the names that transformers has for its keys.

transformers' own reader leaves out the following, which this file adds: the head width of Qwen 3, the context and MLP
width of GPT-2, attention biases, scaled rotary positions (Llama 3.1 and 3.2, linear, YaRN), Gemma 3's scale of queries
and local theta.  llama.cpp's source says what an absent key means.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable
from typing import Any

from afteredit.model.loading.gguf_header import Header
from afteredit.model.loading.gguf_tokenizer import special_ids
from afteredit.store.errors import BadInput

log = logging.getLogger(__name__)

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma3", "gpt2")
# keys that say what the tensors say too, or what no answer depends on
PASSED_OVER = {"vocab_size", "rope.dimension_count", "attention.value_length", "attention.key_length", "expert_count",
               "expert_used_count", "rope.freq_base", "rope.scaling.type", "rope.scaling.factor",
               "rope.scaling.original_context_length", "rope.scaling.finetuned", "rope.freq_base_swa",
               "attention.sliding_window_pattern", "final_logit_softcapping", "attention.causal"}  # fmt: skip
CHANGES_ANSWERS = re.compile(r"scale|scaling|softcap|sliding|expert|alibi|residual|clamp")
# keys of transformers' tables that a file may leave out, and llama.cpp has a default for
MAY_LACK = {"rope.dimension_count", "rope.freq_base", "attention.head_count_kv", "attention.key_length", "vocab_size"}
# kinds of values, by the last word of a key
KINDS: list[tuple[str, str, Callable[[Any], bool]]] = [
    (r"causal|finetuned|add_(bos|eos)_token|add_space_prefix", "true or false, no text or number",
     lambda value: type(value) is bool),
    (r"type|model|pre|chat_template", "a text", lambda value: isinstance(value, str)),
    (r"\w+_length|block_count|head_count(_kv)?|sliding_window|dimension_count", "a whole number of at least 1",
     lambda value: type(value) is int and value >= 1),
    (r"factor|freq_base(_swa)?|final_logit_softcapping", "a finite number of at least 0",
     lambda value: type(value) in (int, float) and 0 <= value < math.inf),
    (r"layer_norm(_rms)?_epsilon", "at least 0 and below 1",
     lambda value: type(value) in (int, float) and 0 <= value < 1),
]  # fmt: skip
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}  # all of them


def settings_of(header: Header, file: str) -> dict[str, Any]:
    """Returns the fields of the config of the model that `header` describes.

    Raises BadInput where it is of an architecture that cannot be read here, or says what its config cannot.
    """
    from transformers.integrations.ggml import GGUF_CONFIG_MAPPING

    metadata, tensors = header
    architecture = metadata.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise BadInput(f"{file} is of architecture {architecture!r} (general.architecture); GGUF files of "
                       f"{', '.join(ARCHITECTURES)} can be read; give others as a folder of safetensors")  # fmt: skip
    _check_kinds(metadata, architecture, file)
    own = {key.removeprefix(f"{architecture}."): value for key, value in metadata.items()
           if key.startswith(f"{architecture}.")}  # fmt: skip
    if own.get("expert_count", 0) or any("_exps." in name for name in tensors):
        raise BadInput(f"{file} is a mixture of experts ({architecture}.expert_count={own.get('expert_count')}), "
                       "which cannot be edited here; give a dense model")  # fmt: skip
    if own.get("attention.causal") is False or "token_embd.weight" not in tensors:
        raise BadInput(f"{file} is no decoder with an embedding of its own (attention.causal, token_embd.weight); give "
                       "a whole decoder-only model")  # fmt: skip
    names: dict[str, Any] = GGUF_CONFIG_MAPPING[architecture]  # type: ignore[assignment]
    _look_at_the_rest(own, set(names) | PASSED_OVER, file)
    for key in names:
        if key not in own and key not in MAY_LACK:
            raise BadInput(f"{file} lacks {architecture}.{key}, on which the model's answers depend and which has no "
                           "default; write it to the file, or give another file")  # fmt: skip
    settings = {name: own[key] for key, name in names.items() if name and key in own}
    n_blocks = own.get("block_count")
    if type(n_blocks) is not int or not 1 <= n_blocks <= len(tensors):
        raise BadInput(f"{file}: {architecture}.block_count={n_blocks!r}, but it holds {len(tensors)} tensors")
    ids = special_ids(header, file)
    settings |= {f"{role}_id": index for role, index in ids.items()}
    settings["vocab_size"] = tensors["token_embd.weight"].shape[0]
    settings["tie_word_embeddings"] = "output.weight" not in tensors
    if architecture == "gpt2":
        positions, inner = settings.pop("n_ctx"), settings.pop("feed_forward_length")
        return {"model_type": "gpt2", **settings, "n_positions": positions, "n_inner": inner}
    return settings | _with_rotary_positions(architecture, own, settings, header, file)


def _with_rotary_positions(
    architecture: str, own: dict[str, Any], settings: dict[str, Any], header: Header, file: str
) -> dict[str, Any]:
    """Returns what the younger four architectures' configs say beyond GPT-2's."""
    heads, width = settings["num_attention_heads"], settings["hidden_size"]
    query = header.tensors.get("blk.0.attn_q.weight")
    head = own.get("attention.key_length", (query.shape[0] if query else width) // heads)
    if own.get("rope.dimension_count", head) != head:
        raise BadInput(f"{file}: only {own['rope.dimension_count']} of {head} entries of a head turn with the position "
                       "(rope.dimension_count), which the config cannot say")  # fmt: skip
    added: dict[str, Any] = {"model_type": architecture, "head_dim": head}
    added["num_key_value_heads"] = settings.get("num_key_value_heads", heads)
    rope = {"rope_theta": settings.get("rope_theta", 10000.0)} | _scaled(own, header, head, settings, file)
    settings.pop("rope_theta", None)
    if architecture != "gemma3":
        biases = {} if architecture == "qwen2" else {"attention_bias": "blk.0.attn_output.bias" in header.tensors}
        return added | biases | {"rope_parameters": rope}
    local = {"rope_type": "default", "rope_theta": own.get("rope.freq_base_swa", 10000.0)}
    every = own.get("attention.sliding_window_pattern", 6)
    if type(every) is int and every >= 1:
        layers = [(block + 1) % every != 0 for block in range(own["block_count"])]
    elif isinstance(every, list) and len(every) == own["block_count"] and all(type(each) is bool for each in every):
        layers = every
    else:
        raise BadInput(f"{file}: gemma3.attention.sliding_window_pattern={every!r}; it must be a whole number of at "
                       f"least 1, or true or false for each of {own['block_count']} blocks")  # fmt: skip
    return added | {
        "model_type": "gemma3_text",
        "rope_parameters": {"full_attention": rope, "sliding_attention": local},
        "layer_types": ["sliding_attention" if slides else "full_attention" for slides in layers],
        "query_pre_attn_scalar": width // heads if own["block_count"] == 62 else head,  # Gemma 3 27B alone
        "final_logit_softcapping": own.get("final_logit_softcapping") or None,  # 0: none
    }


def _scaled(own: dict[str, Any], header: Header, head: int, settings: dict[str, Any], file: str) -> dict[str, Any]:
    """Returns how the rotary positions are scaled: linearly where a factor stands alone, and not at all by 0 or 1."""
    kind, factor = own.get("rope.scaling.type", "linear"), own.get("rope.scaling.factor", 1.0) or 1.0
    unscaled = kind == "none" or (kind == "linear" and factor == 1.0)
    if "rope_freqs.weight" in header.tensors and unscaled:
        return _llama3(header, head, settings, file)
    if "rope_freqs.weight" in header.tensors:
        raise BadInput(f"{file} scales positions twice: by rope_freqs.weight and by rope.scaling.type={kind!r}; give "
                       "the model as a folder of safetensors")  # fmt: skip
    if unscaled:
        return {"rope_type": "default"}
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind == "yarn" and "rope.scaling.original_context_length" in own:
        original = own["rope.scaling.original_context_length"]
        return {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}
    raise BadInput(f"{file}: rope.scaling.type={kind!r} cannot be read; none, linear and yarn (with its "
                   "original_context_length) can; give the model as a folder of safetensors")  # fmt: skip


def _llama3(header: Header, head: int, settings: dict[str, Any], file: str) -> dict[str, Any]:
    """Returns the rule of Llama 3.1 and 3.2 whose divisors of frequencies the file holds as a tensor."""
    import torch
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    from afteredit.model.loading.gguf_tensors import dequantised

    stored = header.tensors["rope_freqs.weight"]
    if stored.shape == (head // 2,):
        divisors = torch.from_numpy(dequantised(stored))
        theta = settings.get("rope_theta", 10000.0)
        rule = {"rope_type": "llama3", "factor": round(float(divisors.max()), 4), **LLAMA3}
        config = LlamaConfig(head_dim=head, rope_parameters={"rope_theta": theta, **rule})
        frequencies, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
        plain = theta ** -(torch.arange(0, head, 2).float() / head)
        if torch.allclose(plain / divisors, frequencies, rtol=1e-4, atol=0):
            return rule
    raise BadInput(f"{file}: rope_freqs.weight scales positions by no rule of Llama 3's; give the model as a folder of "
                   "safetensors")  # fmt: skip


def _check_kinds(metadata: dict[str, Any], architecture: str, file: str) -> None:
    """Raises BadInput where a value is of another kind than its key, or the file holds no model."""
    for key, value in metadata.items():
        if key.startswith((f"{architecture}.", "tokenizer.")):
            for pattern, kind, holds in KINDS:
                if re.fullmatch(pattern, key.rpartition(".")[2]) and not holds(value):
                    raise BadInput(f"{file}: {key}={value!r:.100}; it must be "
                                   f"{kind}; mend the file's metadata, or give another file")  # fmt: skip
    if metadata.get("general.type", "model") != "model":
        raise BadInput(f"{file} holds no model but {metadata['general.type']!r} (general.type); give the file of a "
                       "whole model; an adapter is merged into its base model first")  # fmt: skip


def _look_at_the_rest(own: dict[str, Any], known: set[str], file: str) -> None:
    """Raises BadInput where a key that is not read changes what the model answers; names the others in the log."""
    rest = {key: value for key, value in own.items() if key not in known}
    for key, value in rest.items():
        if CHANGES_ANSWERS.search(key):
            raise BadInput(f"{file} says {key}={str(value)[:100]!r}, which cannot be read and changes what the model "
                           "answers; give the model as a folder of safetensors")  # fmt: skip
    if rest:
        log.warning("%s: keys that are not read: %s", file, ", ".join(sorted(rest)))
