"""LM: running the model whatever its padding, and changing exactly the matrices that an update names."""

import copy
import logging

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from afteredit.edit.ingredients import sampled_text
from afteredit.edit.update import Dense, LowRank, Update
from afteredit.launch.command_line import compose
from afteredit.model.lm import LM
from afteredit.model.tensors import pad
from afteredit.store.errors import BadInput
from afteredit.store.user_cache import cache_folder


def low_rank(lm: LM, layer: int = 1, seed: int = 0, scale: float = 0.1) -> Update:
    D, F = lm.widths(layer)
    generator = torch.Generator().manual_seed(seed)
    left_Dr, right_Fr = (scale * torch.randn(n, 2, generator=generator) for n in (D, F))
    return Update({lm.mlp_out_name(layer): LowRank(left_Dr, right_Fr)})


def weights(lm: LM) -> dict[str, torch.Tensor]:
    return {name: parameter.clone() for name, parameter in lm.model.named_parameters()}


def differing(lm: LM, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, parameter in lm.model.named_parameters() if not torch.equal(parameter, before[name])}


@pytest.fixture
def square_gpt2(tokenizer) -> LM:
    """F == D: which way the matrix is stored cannot be told from its shape."""
    torch.manual_seed(0)
    config = AutoConfig.for_model("gpt2", vocab_size=len(tokenizer), n_embd=32, n_inner=32, n_layer=2, n_head=4)
    model = AutoModelForCausalLM.from_config(config)
    torch.nn.init.normal_(model.transformer.h[1].mlp.c_proj.bias)
    return LM(model, tokenizer)


def test_hidden_states_do_not_depend_on_the_padding_side(make_lm, family):
    lm = make_lm(family)
    rows = [lm.tokens.encode(text) for text in ("China", "The sport that brought Joe DiMaggio to fame is", "Fenrir is")]
    lefts, rights = (lm.forward(*pad(rows, side)) for side in ("left", "right"))
    for row, left_TD, right_TD in zip(rows, lefts, rights, strict=True):
        assert_close(left_TD[-len(row) :], right_TD[: len(row)], rtol=0, atol=1e-5)
        own_TV = lm.model(input_ids=torch.tensor([row])).logits[0]
        assert_close(lm.logits(right_TD[: len(row)]), own_TV, rtol=1e-4, atol=1e-5)


def assert_W_is_the_module(lm: LM) -> None:
    D, F = lm.widths(1)
    module, W_DF = lm.mlp_out(1), lm.weights.W(lm.mlp_out_name(1))
    key_F = torch.randn(F, generator=torch.Generator().manual_seed(0))
    bias_D = 0 if module.bias is None else module.bias
    assert W_DF.shape == (D, F)
    assert_close(W_DF @ key_F + bias_D, module(key_F[None])[0], rtol=1e-5, atol=1e-6)


def test_W_times_key_plus_bias_is_the_module(make_lm, family):
    lm = make_lm(family)
    assert lm.widths(1) == (32, 48)
    assert_W_is_the_module(lm)


def test_a_square_matrix_is_not_taken_for_its_transpose(square_gpt2):
    assert square_gpt2.widths(1) == (32, 32)
    assert_W_is_the_module(square_gpt2)
    square_gpt2.weights.add(low_rank(square_gpt2).changes)
    assert_W_is_the_module(square_gpt2)


def test_apply_adds_left_times_right_to_that_matrix_alone(make_lm, family):
    lm = make_lm(family)
    before, update = weights(lm), low_rank(lm)
    ((name, change),) = update.changes.items()
    W_DF = lm.weights.W(name).clone()
    lm.weights.add(update.changes)
    assert_close(lm.weights.W(name), W_DF + change.left_Dr @ change.right_Fr.T, rtol=1e-6, atol=1e-6)
    assert differing(lm, before) == {name}
    assert torch.equal(lm.weights.W_base(name), W_DF)
    assert_W_is_the_module(lm)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_restore_and_put_back_are_bit_identical(make_lm, family, dtype):
    lm = make_lm(family, dtype=dtype)
    unedited = weights(lm)
    for seed, layer in enumerate((1, 2, 1)):
        lm.weights.add(low_rank(lm, layer, seed).changes)
    edited, kept, digest = weights(lm), lm.weights.copies(), lm.weights.sha256()
    lm.weights.restore()
    assert not differing(lm, unedited)
    lm.weights.put_back(kept)
    assert not differing(lm, edited)
    assert lm.weights.sha256() == digest
    lm.weights.restore()
    assert not differing(lm, unedited)


def test_the_weights_hash_changes_on_apply_and_returns_on_restore(make_lm, family):
    lm = make_lm(family)
    lm.weights.add(low_rank(lm).changes)
    lm.weights.restore()
    unedited = lm.weights.sha256()
    lm.weights.add(low_rank(lm).changes)
    edited = lm.weights.sha256()
    lm.weights.add(low_rank(lm, seed=1).changes)
    assert len({unedited, edited, lm.weights.sha256()}) == 3
    lm.weights.restore()
    assert lm.weights.sha256() == unedited
    lm.weights.add(low_rank(lm).changes)
    assert lm.weights.sha256() == edited


def test_tiny_updates_add_up_in_a_bfloat16_model(make_lm, family):
    """Each alone is a twentieth of bfloat16's half unit in the last place, so without a master none would be seen."""
    lm = make_lm(family, dtype=torch.bfloat16)
    name = lm.mlp_out_name(1)
    W_DF, before = lm.weights.W(name).clone(), weights(lm)[name]
    for _ in range(20):
        lm.weights.add({name: Dense(1e-4 * W_DF)})
    assert_close(lm.weights.W(name), W_DF * 1.002, rtol=5e-6, atol=0)
    for _ in range(80):
        lm.weights.add({name: Dense(1e-4 * W_DF)})
    now = lm.model.get_parameter(name)
    assert torch.equal(now, (lm.weights.W(name).T if family == "gpt2" else lm.weights.W(name)).bfloat16())
    assert bool((now != before).all())


def named(lm: LM) -> str:
    """The fingerprint of its model as it is now."""
    return LM(lm.model, lm.tokenizer).fingerprint


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_the_fingerprint_sees_every_entry_and_where_it_stands(make_lm, family, dtype):
    lm = make_lm(family, dtype=dtype)
    weight = lm.mlp_out(2).weight
    kept, seen = weight.clone(), [lm.fingerprint]
    places = [(0, 0), (7, 5), (weight.shape[0] - 1, weight.shape[1] - 1)]
    for row, column in places:
        weight[row, column] = torch.nextafter(weight[row, column], torch.tensor(torch.inf, dtype=dtype))
        seen.append(named(lm))
        weight.copy_(kept)
    for dim in (0, 1):
        other = torch.arange(weight.shape[dim])
        other[[1, 5]] = other[[5, 1]]  # two rows, two columns, at the same bytes of eight
        weight.copy_(kept.index_select(dim, other))
        seen.append(named(lm))
        weight.copy_(kept)
    next(parameter for parameter in lm.model.parameters() if parameter.ndim == 1)[-1] += 1
    seen.append(named(lm))
    assert len(set(seen)) == len(seen) == 7


def test_the_fingerprint_does_not_depend_on_where_a_parameter_lies_in_memory(make_lm):
    lm = make_lm("llama")
    module = lm.mlp_out(0)
    rows, columns = module.weight.shape
    moved = torch.empty(rows * columns + 1)[1:].view(rows, columns)
    moved.copy_(module.weight)
    module.weight = torch.nn.Parameter(moved, requires_grad=False)
    assert named(lm) == lm.fingerprint
    module.weight = torch.nn.Parameter(moved.T.contiguous().T, requires_grad=False)
    assert named(lm) == lm.fingerprint


def test_the_fingerprint_sees_matrices_of_odd_width(tokenizer):
    config = AutoConfig.for_model("gpt2", vocab_size=len(tokenizer), n_embd=15, n_layer=2, n_head=3)
    lm = LM(AutoModelForCausalLM.from_config(config), tokenizer)
    lm.model.transformer.wte.weight[3, 2] *= 2
    assert named(lm) != lm.fingerprint


def test_the_fingerprint_sees_the_tokenizer_its_chat_template_and_how_it_is_asked(make_lm, tokenizer):
    lm = make_lm("gpt2")
    more, chat = copy.deepcopy(tokenizer), copy.deepcopy(tokenizer)
    more.add_tokens(["DiMaggio"])
    chat.chat_template = "{{ messages[0].content }}"
    lms = [LM(lm.model, tokenizer), LM(lm.model, more), LM(lm.model, chat), LM(lm.model, tokenizer, start_token="<s>")]
    assert [one.fingerprint == lm.fingerprint for one in lms] == [True, False, False, False]
    assert LM(lm.model, chat, prompt="chat").fingerprint != lms[2].fingerprint


def test_a_batch_that_was_cut_and_padded_leaves_the_fingerprint(make_lm, tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    lm = make_lm("gpt2")
    tokenizer.pad_token = tokenizer.eos_token
    before = LM(lm.model, tokenizer).fingerprint
    tokenizer(["a", "a b c d"], padding=True, truncation=True, max_length=3)
    assert LM(lm.model, tokenizer).fingerprint == before


@pytest.mark.real
def test_the_sampled_text_that_is_shipped_is_what_smollm2_asks_for(monkeypatch, tmp_path):
    lm = compose(["model=smollm2"]).model.load("cpu", "float32")
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path))
    monkeypatch.setattr(sampled_text, "continue_rows", None)  # nothing is to be sampled
    assert len(list(sampled_text.sequences(lm, "sampled", 10 * lm.widths(0)[1]))) == 120
    assert not list(cache_folder().iterdir())


def test_what_is_said_once_is_said_once_of_each_model(make_lm, caplog):
    with caplog.at_level(logging.INFO, logger="afteredit.model"):
        for lm in (make_lm("gpt2"), make_lm("llama")):
            for text in ("one", "two", "one"):
                lm.capabilities.log_once(text)
    assert [r.message for r in caplog.records] == [f"{name}: {text}" for name in ("GPT2LMHeadModel", "LlamaForCausalLM")
                                                   for text in ("one", "two")]  # fmt: skip


def test_a_model_is_unedited_until_a_bit_differs(make_lm):
    lm = make_lm("llama")
    lm.weights.keep_base(map(lm.mlp_out_name, [1, 2]))
    assert lm.weights.is_unedited()
    lm.weights.add(low_rank(lm, 2, scale=1e-4).changes)
    assert not lm.weights.is_unedited()
    lm.weights.restore()
    assert lm.weights.is_unedited()


def test_a_layer_that_is_not_there_is_refused_with_those_that_are(make_lm):
    lm = make_lm("gpt2")
    for layer in (-1, 4):
        with pytest.raises(BadInput, match=f"{layer}.*0..3.*method.layer"):
            lm.mlp_out_name(layer)


def test_an_encoder_decoder_is_refused_by_name(tokenizer):
    config = AutoConfig.for_model("t5", vocab_size=64, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    with pytest.raises(BadInput, match="T5ForConditionalGeneration is an encoder-decoder"):
        LM(AutoModelForSeq2SeqLM.from_config(config), tokenizer)


@pytest.mark.parametrize("experts", [2, 4])
def test_a_mixture_of_experts_is_refused_by_name(tokenizer, experts):
    config = AutoConfig.for_model("mixtral", vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                                  num_attention_heads=2, num_key_value_heads=2, num_local_experts=experts)  # fmt: skip
    with pytest.raises(BadInput, match="MixtralForCausalLM is a mixture of experts"):
        LM(AutoModelForCausalLM.from_config(config), tokenizer)
