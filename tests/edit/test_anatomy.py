"""The parts of a model are found from its structure, in architectures that nobody listed."""

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoConfig, AutoModelForCausalLM

from afteredit.edit.anatomy import find_anatomy, matrix_shape
from afteredit.edit.lm import LM, pad

HF = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}
GATED = {**HF, "num_key_value_heads": 2, "head_dim": 8}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
ARCHITECTURES = {  # settings, the one that is F, the parameter that writes block 1's MLP result
    "gpt2": (GPT, "n_inner", "transformer.h.1.mlp.c_proj.weight"),
    "gptj": ({**GPT, "rotary_dim": 4}, "n_inner", "transformer.h.1.mlp.fc_out.weight"),
    "gpt_neox": (HF, "intermediate_size", "gpt_neox.layers.1.mlp.dense_4h_to_h.weight"),
    "opt": ({**HF, "word_embed_proj_dim": 32}, "ffn_dim", "model.decoder.layers.1.fc2.weight"),
    "llama": (GATED, "intermediate_size", "model.layers.1.mlp.down_proj.weight"),
    "mistral": (GATED, "intermediate_size", "model.layers.1.mlp.down_proj.weight"),
    "qwen2": (GATED, "intermediate_size", "model.layers.1.mlp.down_proj.weight"),
    "qwen3": (GATED, "intermediate_size", "model.layers.1.mlp.down_proj.weight"),
    "gemma2": (GATED, "intermediate_size", "model.layers.1.mlp.down_proj.weight"),
}


@pytest.fixture(params=ARCHITECTURES)
def architecture(request) -> str:
    return request.param


def build(architecture: str, vocab: int, inner: int) -> torch.nn.Module:
    settings, inner_key, _ = ARCHITECTURES[architecture]
    config = AutoConfig.for_model(architecture, vocab_size=vocab, **settings, **{inner_key: inner})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.mark.parametrize("inner", [48, 32], ids=["wider", "square"])
def test_every_block_has_its_mlp_output_matrix(architecture, inner):
    model = build(architecture, 64, inner)
    anatomy = find_anatomy(model)
    name_1 = ARCHITECTURES[architecture][2]
    assert anatomy.mlp_out_names == [name_1.replace(".1.", ".0."), name_1]
    assert [matrix_shape(module) for module in anatomy.mlp_outs] == [(32, inner)] * 2
    for name, module in zip(anatomy.mlp_out_names, anatomy.mlp_outs, strict=True):
        assert model.get_parameter(name) is module.weight


def test_the_model_runs_as_itself_whatever_the_padding(architecture, tokenizer):
    """Also passes LM's own check that its logits are those of final norm, head and soft cap."""
    lm = LM(build(architecture, len(tokenizer), 48), tokenizer)
    rows = [[5, 6, 7, 8, 9], [11, 12, 13]]
    for side in ("left", "right"):
        ids_BT, mask_BT = pad(rows, side)
        logits_BTV = lm.logits(lm.forward(ids_BT, mask_BT))
        for row, mask_T, logits_TV in zip(rows, mask_BT, logits_BTV, strict=True):
            own_TV = lm.model(input_ids=torch.tensor([row])).logits[0].float()
            assert_close(logits_TV[mask_T.bool()], own_TV, rtol=1e-4, atol=1e-4)
