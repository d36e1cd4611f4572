"""Writes tiny models to GGUF files by the rules of llama.cpp's convert_hf_to_gguf.py."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import dequantize, quantize
from tokenizers import Tokenizer, models, trainers
from transformers import AutoConfig, AutoModelForCausalLM

from afteredit.tests.tiny.models import TOKENS, randomised
from afteredit.tests.tiny.tokenizers import FACTS

F32, F16, Q8_0 = GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.Q8_0
WIDE = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 512, "rms_norm_eps": 1e-6}  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {  # rows of 32, which blocks of Q8_0 need
    "llama": {"model_type": "llama", **WIDE, "rope_theta": 50000.0},
    "qwen2": {"model_type": "qwen2", **WIDE, "rope_theta": 1000000.0},
    "qwen3": {"model_type": "qwen3", **WIDE, "head_dim": 32, "rope_theta": 1000000.0},
    "gemma3": {"model_type": "gemma3_text", **WIDE, "head_dim": 32, "num_hidden_layers": 7, "sliding_window": 16,
               "query_pre_attn_scalar": 32},
    "gpt2": {"model_type": "gpt2", "n_embd": 64, "n_inner": 96, "n_layer": 3, "n_head": 4, "n_positions": 200},
}  # fmt: skip
NAMES = {  # of a block's parts, the younger architectures' and GPT-2's
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
}  # fmt: skip
GEMMA = {"post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
         "post_feedforward_layernorm": "post_ffw_norm"}  # fmt: skip
WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
         "transformer.wte": "token_embd", "transformer.wpe": "position_embd", "transformer.ln_f": "output_norm",
         "rope_freqs": "rope_freqs"}  # fmt: skip


def tiny(architecture: str, vocab: int, **changes: Any) -> Any:
    """Returns a random model of an architecture; it is tied where `tie_word_embeddings` says so."""
    torch.manual_seed(0)
    settings = {**SHAPES[architecture], "vocab_size": vocab, "tie_word_embeddings": True, **TOKENS, **changes}
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    return randomised(AutoModelForCausalLM.from_config(config)).eval()


def write_gguf(file: Path, architecture: str, model: Any, vocabulary: dict[str, Any], kind: Any = F32,
               extra: dict[str, Any] | None = None, parts: int = 0) -> None:  # fmt: skip
    """Writes the model to `file` (or to parts beside it) and gives it, too, the weights that the file then holds."""
    n = len(list(model.named_parameters()))
    writer = GGUFWriter(file, architecture, split_max_tensors=-(-n // parts) if parts else 0)
    _write_metadata(writer, architecture, model.config)
    for key, value in {**vocabulary, **(extra or {})}.items():
        writer.kv_data[0].pop(key, None)  # one that the config has is said otherwise
        add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string,
               list: writer.add_array}[type(value)]  # fmt: skip
        add(key, value)
    for name, parameter in model.named_parameters():
        new, back = _forth_and_back(architecture, name, model.config)
        values = new(parameter.data).contiguous().numpy()
        if parameter.ndim > 1:
            stored = quantize(values, kind)
            parameter.data = back(torch.from_numpy(np.array(dequantize(stored, kind)).reshape(values.shape)))
            writer.add_tensor(gguf_name(architecture, name), stored, raw_dtype=kind)
        else:
            parameter.data = back(torch.from_numpy(values))
            writer.add_tensor(gguf_name(architecture, name), values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_name(architecture: str, name: str) -> str:
    """Returns llama.cpp's name of a parameter."""
    module, _, leaf = name.rpartition(".")
    if module in WHOLE:
        return f"{WHOLE[module]}.{leaf}"
    block, part = re.fullmatch(r"\D+(\d+)\.(.+)", module).groups()  # type: ignore[union-attr]
    return f"blk.{block}.{({**NAMES, **GEMMA} if architecture == 'gemma3' else NAMES)[part]}.{leaf}"


def _forth_and_back(architecture: str, name: str, config: Any) -> tuple[Any, Any]:
    """Returns what llama.cpp does to a parameter, and what undoes it."""
    if architecture == "gpt2" and re.search(r"(c_attn|c_proj|c_fc)\.weight", name):
        return torch.t, torch.t
    if architecture == "gemma3" and name.endswith("norm.weight"):
        return lambda x: x + 1, lambda x: x - 1
    turned = architecture == "llama" and re.search(r"([qk])_proj", name)
    if not turned:
        return lambda x: x, lambda x: x
    heads = config.num_attention_heads if turned[1] == "q" else config.num_key_value_heads

    def halves(x: torch.Tensor, first: int, second: int) -> torch.Tensor:
        return x.reshape(heads, first, second, *x.shape[1:]).transpose(1, 2).reshape(x.shape)

    half = config.head_dim // 2
    return lambda x: halves(x, 2, half), lambda x: halves(x, half, 2)


def _write_metadata(writer: GGUFWriter, architecture: str, config: Any) -> None:
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_head_count(config.num_attention_heads)
    if architecture == "gpt2":
        writer.add_feed_forward_length(config.n_inner)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    rope = config.rope_parameters
    writer.add_rope_freq_base(rope.get("full_attention", rope)["rope_theta"])
    if architecture == "llama":
        writer.add_rope_dimension_count(config.head_dim)
    if architecture in ("qwen3", "gemma3"):
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    if architecture == "gemma3":
        writer.add_sliding_window(config.sliding_window)


def byte_level_vocabulary(tokenizer: Any, pre: str) -> dict[str, Any]:
    """Returns the metadata of a byte-level tokenizer."""
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    tokens = sorted(rules["model"]["vocab"], key=rules["model"]["vocab"].get)
    special = {token["id"] for token in rules["added_tokens"]}
    return {
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre, "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if index in special else 1 for index in range(len(tokens))],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in rules["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": 0, "tokenizer.ggml.eos_token_id": 0,
    }  # fmt: skip


def sentencepiece(kind: type, special: tuple[str, ...]) -> tuple[Any, dict[str, Any]]:
    """Returns a tokenizer of transformers' Llama or Gemma class, and the metadata that describe it.

    Pieces are learned from the embedded facts.  Two that stand side by side become one where it is in the vocabulary,
    the one learned first before the others, as SentencePiece does.
    """
    raw = Tokenizer(models.BPE())
    lines = [json.loads(line)["prompt"].replace(" ", "▁") for line in FACTS.read_text(encoding="utf-8").splitlines()]
    raw.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    learned = sorted(raw.get_vocab(), key=raw.get_vocab().get)  # type: ignore[arg-type]
    tokens = list(dict.fromkeys([*special, *(f"<0x{byte:02X}>" for byte in range(256)), *learned, "▁"]))
    pairs = [(t[:i], t[i:]) for t in learned for i in range(1, len(t)) if t[:i] in tokens and t[i:] in tokens]
    ids = {token: index for index, token in enumerate(tokens)}
    tokenizer = kind(vocab=ids, merges=pairs)
    kinds = [3 if token in special else 6 if token.startswith("<0x") else 1 for token in tokens]
    roles = {"bos": tokenizer.bos_token, "eos": tokenizer.eos_token, "unknown": tokenizer.unk_token}
    return tokenizer, {
        "tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "default", "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds, "tokenizer.ggml.scores": [-float(ids[token]) for token in tokens],
        **{f"tokenizer.ggml.{role}_token_id": ids[token] for role, token in roles.items()},
    }  # fmt: skip
