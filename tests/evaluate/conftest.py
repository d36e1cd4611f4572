"""Tiny random models of every architecture on which the shortcuts of measuring are held against plain passes."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from afteredit.edit.lm import LM

SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
         "max_position_embeddings": 128}  # fmt: skip
GATED = {**SHAPE, "num_key_value_heads": 2, "head_dim": 8}
GPT = {"n_embd": 32, "n_inner": 48, "n_layer": 4, "n_head": 4, "n_positions": 128}
ARCHITECTURES = {
    "gpt2": ("gpt2", GPT),
    "gptj": ("gptj", {**GPT, "rotary_dim": 4}),
    "gpt_neox": ("gpt_neox", SHAPE),
    "opt": ("opt", {**SHAPE, "ffn_dim": 48, "word_embed_proj_dim": 32}),
    "llama": ("llama", GATED),
    "llama-tied": ("llama", {**GATED, "tie_word_embeddings": True}),
    "gemma2": ("gemma2", {**GATED, "sliding_window": 4096}),  # soft caps; its window is wider than any row
    "gemma2-windows": ("gemma2", {**GATED, "sliding_window": 9}),
}


def build(name: str, vocab: int, dtype: torch.dtype) -> torch.nn.Module:
    """Random, norms and biases too, but the same each time."""
    family, settings = ARCHITECTURES[name]
    config = AutoConfig.for_model(family, vocab_size=vocab, pad_token_id=0, **settings)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.2 * torch.randn_like(parameter)
        else:
            torch.nn.init.normal_(parameter, std=0.2)
    return model.to(dtype)


@pytest.fixture(params=list(ARCHITECTURES))
def exact_lm(request, tokenizer) -> LM:
    """In float64: what is the same mathematics is the same to ten digits."""
    return LM(build(request.param, len(tokenizer), torch.float64), tokenizer)
