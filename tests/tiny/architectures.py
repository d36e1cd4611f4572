"""Tiny random models of every architecture that is tested."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from afteredit.tests.tiny.models import random_model, randomised


@dataclass(frozen=True)
class Architecture:
    name: str
    settings: dict[str, Any]
    inner_key: str  # the setting that is F
    mlp_out: str  # the parameter that writes a block's MLP result

    def build(self, vocab: int, inner: int = 48) -> torch.nn.Module:
        """Two blocks of width 32, random but the same each time, norms and biases too."""
        return randomised(random_model(self.name, vocab, **self.settings, **{self.inner_key: inner}))


HF = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}
GATED = {**HF, "num_key_value_heads": 2, "head_dim": 8}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
DOWN = "model.layers.{}.mlp.down_proj.weight"
ARCHITECTURES = [
    Architecture("gpt2", GPT, "n_inner", "transformer.h.{}.mlp.c_proj.weight"),
    Architecture("gptj", {**GPT, "rotary_dim": 4}, "n_inner", "transformer.h.{}.mlp.fc_out.weight"),
    Architecture("gpt_neox", HF, "intermediate_size", "gpt_neox.layers.{}.mlp.dense_4h_to_h.weight"),
    Architecture("opt", {**HF, "word_embed_proj_dim": 32}, "ffn_dim", "model.decoder.layers.{}.fc2.weight"),
    Architecture("llama", GATED, "intermediate_size", DOWN),
    Architecture("mistral", GATED, "intermediate_size", DOWN),
    Architecture("qwen2", GATED, "intermediate_size", DOWN),
    Architecture("qwen3", GATED, "intermediate_size", DOWN),
    Architecture("gemma2", GATED, "intermediate_size", DOWN),
]


@pytest.fixture(params=ARCHITECTURES, ids=lambda architecture: architecture.name)
def architecture(request) -> Architecture:
    return request.param
