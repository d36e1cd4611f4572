"""The plain way to run a model: one row, the model's own forward, hooks; no padding, no cache, nothing of `prefix`.
And tiny random models of every family that is tested."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM


def _plain_pass(lm, row, layer, at, offset_D=None) -> SimpleNamespace:
    """keys (T, F) of the block's MLP output matrix, its output at `at`, normalised hidden states and logits of one
    row, with `offset_D` added to the MLP output at `at`."""
    seen = {}

    def tap(_module, args, output):
        seen["keys_TF"], seen["value_D"] = args[0][0], output[0, at]
        if offset_D is None:
            return None
        moved = torch.zeros_like(output)
        moved[0, at] = 1
        return output + moved * offset_D

    hooks = [
        lm.mlp_out(layer).register_forward_hook(tap),
        lm.anatomy.final_norm.register_forward_hook(lambda _m, _a, output: seen.update(hidden_TD=output[0])),
    ]
    try:
        seen["logits_TV"] = lm.model(input_ids=torch.tensor([list(row)]), use_cache=False).logits[0]
    finally:
        for hook in hooks:
            hook.remove()
    return SimpleNamespace(**seen)


def _plain_nll(lm, ids, target, layer=0, at=0, offset_D=None) -> torch.Tensor:
    """Mean nats per token of `target` behind `ids`."""
    with torch.no_grad():
        logits_TV = _plain_pass(lm, [*ids, *target], layer, at, offset_D).logits_TV.float()
    log_p_NV = logits_TV[len(ids) - 1 : -1].log_softmax(-1)
    return -log_p_NV[torch.arange(len(target)), torch.tensor(target)].mean()


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Threads gain nothing on tiny tensors, and on a busy machine they wait for each other: minutes, not seconds."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def plain_pass():
    return _plain_pass


@pytest.fixture(scope="session")
def plain_nll():
    return _plain_nll


@dataclass(frozen=True)
class Architecture:
    name: str
    settings: dict[str, Any]
    inner_key: str  # the setting that is F
    mlp_out: str  # the parameter that writes a block's MLP result

    def build(self, vocab: int, inner: int = 48) -> torch.nn.Module:
        """Two blocks of width 32, random but the same each time, norms and biases too."""
        config = AutoConfig.for_model(self.name, vocab_size=vocab, **self.settings, **{self.inner_key: inner})
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            if parameter.ndim == 1:  # around the norm's 1: one that multiplies by nearly 0 hides all before it
                parameter.data += 0.2 * torch.randn_like(parameter)
            else:
                torch.nn.init.normal_(parameter, std=0.2)
        return model


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
