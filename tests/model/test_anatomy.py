"""Tests that the parts of a model are found from its structure, and that other architectures are refused by name."""

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from afteredit.model.anatomy import find_anatomy
from afteredit.model.lm import LM
from afteredit.model.tensors import pad
from afteredit.model.weights import matrix_shape
from afteredit.store.errors import BadInput


@pytest.mark.parametrize("inner", [48, 32], ids=["wider", "square"])
def test_every_block_has_its_mlp_output_matrix(architecture, inner):
    model = architecture.build(64, inner)
    anatomy = find_anatomy(model)
    assert anatomy.mlp_out_names == [architecture.mlp_out.format(block) for block in (0, 1)]
    assert [matrix_shape(module) for module in anatomy.mlp_outs] == [(32, inner)] * 2
    for name, module in zip(anatomy.mlp_out_names, anatomy.mlp_outs, strict=True):
        assert model.get_parameter(name) is module.weight


def test_hooks_on_the_matrix_see_rows_and_positions(architecture):
    """Even where the block gives it rows and positions in one, as OPT does; and the model answers as before."""
    model, ids_BT = architecture.build(64).eval(), torch.arange(6).view(2, 3)
    before = model(input_ids=ids_BT).logits
    module, shapes = find_anatomy(model).mlp_outs[1], []
    module.register_forward_hook(lambda _m, args, output: shapes.append((*args[0].shape, *output.shape)))
    assert torch.equal(model(input_ids=ids_BT).logits, before)
    assert shapes == [(2, 3, 48, 2, 3, 32)]
    assert module(torch.ones(5, 48)).shape == (5, 32)


def test_the_model_runs_as_itself_whatever_the_padding(architecture, tokenizer):
    """Also passes LM's own check that its logits are those of final norm, head and soft cap."""
    lm = LM(architecture.build(len(tokenizer)), tokenizer)
    rows = [[5, 6, 7, 8, 9], [11, 12, 13]]
    for side in ("left", "right"):
        ids_BT, mask_BT = pad(rows, side)
        logits_BTV = lm.logits(lm.forward(ids_BT, mask_BT))
        for row, mask_T, logits_TV in zip(rows, mask_BT, logits_BTV, strict=True):
            own_TV = lm.model(input_ids=torch.tensor([row])).logits[0].float()
            assert_close(logits_TV[mask_T.bool()], own_TV, rtol=1e-4, atol=1e-4)


def test_a_layer_that_is_not_there_is_refused_with_those_that_are(make_lm):
    lm = make_lm("gpt2")
    for layer in (-1, 4):
        with pytest.raises(BadInput, match=f"{layer}.*0..3.*method.layer"):
            lm.mlp_out_name(layer)


MIXTURES = {
    "mixtral": {"num_local_experts": 2},
    "qwen2_moe": {"num_experts": 4, "moe_intermediate_size": 8, "shared_expert_intermediate_size": 8},
    "qwen3_moe": {"num_experts": 4, "moe_intermediate_size": 8},
}


@pytest.mark.parametrize("name", MIXTURES)
def test_a_mixture_of_experts_is_refused_by_name(name):
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = AutoConfig.for_model(name, vocab_size=64, num_key_value_heads=2, **sizes, **MIXTURES[name])
    model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(BadInput, match=f"{type(model).__name__} is a mixture of experts"):
        find_anatomy(model)


BART = {"d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}  # fmt: skip
ENCODER_DECODERS = [
    ("t5", {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}, AutoModelForSeq2SeqLM),
    ("bart", BART, AutoModelForSeq2SeqLM),
    ("bart", BART, AutoModelForCausalLM),  # as loading a BART folder gives: its decoder alone
]


@pytest.mark.parametrize(("name", "sizes", "load"), ENCODER_DECODERS, ids=["t5", "bart", "bart's decoder"])
def test_an_encoder_decoder_is_refused_by_name(name, sizes, load):
    model = load.from_config(AutoConfig.for_model(name, vocab_size=64, **sizes))
    with pytest.raises(BadInput, match=f"{type(model).__name__} is an encoder-decoder"):
        find_anatomy(model)
