"""Tiny random models: no network, no downloads, milliseconds; their weights are the same each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from afteredit.model.lm import LM

FAMILIES = ("gpt2", "gptj", "llama")
TOKENS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}

GPT = {"n_embd": 32, "n_inner": 48, "n_layer": 4, "n_head": 4, "n_positions": 128}
SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
         "max_position_embeddings": 128}  # fmt: skip
GATED = {**SHAPE, "num_key_value_heads": 2, "head_dim": 8}
EXACT = {  # on which the shortcuts are compared with plain passes
    "gpt2": ("gpt2", GPT),  # its head is tied to its embedding, as OPT's and Gemma 2's are
    "gptj": ("gptj", {**GPT, "rotary_dim": 4}),
    "gpt_neox": ("gpt_neox", SHAPE),
    "opt": ("opt", {**SHAPE, "ffn_dim": 48, "word_embed_proj_dim": 32}),
    "llama": ("llama", GATED),
    "llama-tied": ("llama", {**GATED, "tie_word_embeddings": True}),
    "gemma2": ("gemma2", {**GATED, "sliding_window": 4096}),  # soft caps; its window is wider than any row
    "gemma2-windows": ("gemma2", {**GATED, "sliding_window": 9}),
}


def random_model(family: str, vocab: int, **settings: Any) -> torch.nn.Module:
    """Returns a model of a Hugging Face family with its own initial weights."""
    torch.manual_seed(0)
    model: torch.nn.Module = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(family, vocab_size=vocab, **settings)
    )
    return model


def tiny_model(family: str, vocab: int, dtype: torch.dtype = torch.float32, positions: int = 256) -> torch.nn.Module:
    """Returns a model of one of FAMILIES whose weights are large enough that every part counts."""
    key = "max_position_embeddings" if family == "llama" else "n_positions"
    shape = EXACT[family][1] | {key: positions}
    model = random_model(family, vocab, **shape, **TOKENS)
    for name, parameter in model.named_parameters():  # random biases too: a forgotten one must show
        if parameter.ndim == 1 and "bias" in name:
            torch.nn.init.normal_(parameter, std=0.5)
        elif parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.15)
    if dtype is torch.bfloat16:  # torch's fused attention wants AVX-512 here, also where ATEN_CPU_CAPABILITY forbids it
        model.set_attn_implementation("eager")  # type: ignore[operator]
    return model.to(dtype).eval()


def exact_model(name: str, vocab: int, dtype: torch.dtype = torch.float64) -> torch.nn.Module:
    """Returns a model of EXACT; its norms and biases are random too."""
    family, settings = EXACT[name]
    return randomised(random_model(family, vocab, pad_token_id=0, **settings)).to(dtype)


def randomised(model: torch.nn.Module) -> torch.nn.Module:
    """Draws every weight anew and returns the model."""
    for parameter in model.parameters():
        if parameter.ndim == 1:  # around the norm's 1: one that multiplies by nearly 0 hides all before it
            parameter.data += 0.2 * torch.randn_like(parameter)
        else:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def constant_model(vocab: int, token: int, positions: int = 4096) -> torch.nn.Module:
    """Returns a GPT-2 to which one token is likeliest after any text."""
    model: Any = tiny_model("gpt2", vocab, positions=positions)
    head = torch.zeros(vocab, GPT["n_embd"])
    head[token] = 1.0
    model.lm_head.weight = torch.nn.Parameter(head)
    model.transformer.ln_f.weight.data.zero_()
    model.transformer.ln_f.bias.data.fill_(1.0)
    return model


def save_llama(folder: Path, tokenizer: Any) -> None:
    """Saves a Llama, smaller still, that a run can load from the folder."""
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
    model: Any = random_model("llama", len(tokenizer), max_position_embeddings=1024, initializer_range=0.3,
                              **shape, **TOKENS)  # fmt: skip
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def n_hooks(lm: LM) -> int:
    """Counts the hooks on all of a model's modules."""
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in lm.model.modules())
