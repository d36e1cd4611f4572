"""MEMIT, MEMIT_seq: normal equations, the order of blocks, one-shot equality; on tiny models of three families."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from afteredit.edit.blocks_in_turn import regularised
from afteredit.edit.keys import subject_keys, subject_streams
from afteredit.edit.memit import Memit
from afteredit.edit.memit_seq import MemitSeq
from afteredit.edit.method import Prepared
from afteredit.edit.request import BadInput
from afteredit.edit.update import LowRank, State, Update
from afteredit.edit.value import optimise_targets

CONTEXTS = ("", "The old man said that", "It is known")
LAYERS = [0, 1, 2]


def spd(size: int, seed: int = 0) -> torch.Tensor:
    sample_NF = torch.randn(4 * size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return sample_NF.T @ sample_NF / len(sample_NF) + 0.05 * torch.eye(size, dtype=torch.float64)


def method(cls=Memit, **keys):
    return cls(**{"layers": LAYERS, "second_moment_weight": 0.5, "value_steps": 8, "weight_decay": 0.0, **keys})


def prepared(lm) -> Prepared:
    moments = {f"second_moment/{layer}": spd(lm.widths(layer)[1], layer) for layer in LAYERS}
    return Prepared(CONTEXTS, moments)


def test_regularised_solves_its_equation():
    A_FF, keys_FE = spd(9), torch.randn(9, 3, generator=torch.Generator().manual_seed(1))
    K = keys_FE.double().numpy()
    expected = np.linalg.inv(A_FF.numpy() + K @ K.T) @ K
    assert_close(regularised(A_FF, keys_FE), torch.from_numpy(expected), rtol=1e-9, atol=1e-12)


def test_a_singular_second_moment_is_named():
    with pytest.raises(BadInput, match="tokens_per_key_dim"):
        regularised(torch.zeros(4, 4), torch.ones(4, 1))


def test_every_blocks_change_solves_its_normal_equations(make_lm, family, fact, second_fact):
    """Δ_l (λ C_l + K_l K_lᵀ) = R_l K_lᵀ, with keys and residuals measured on the model as it is when its turn comes."""
    lm = make_lm(family, start_token="<s>" if family == "llama" else None)
    requests, constants, memit = [fact, second_fact], prepared(lm), method()
    update, _ = memit.update(lm, requests, constants, State())
    z_DE = torch.stack([optimise_targets(lm, [r], CONTEXTS, LAYERS[-1], memit)[0].z_D for r in requests], 1).double()
    for i, layer in enumerate(LAYERS):
        change_DF = update.changes[lm.mlp_out_name(layer)].dense()
        K_FE = subject_keys(lm, requests, CONTEXTS, layer).double()
        R_DE = (z_DE - subject_streams(lm, requests, LAYERS[-1]).double()) / (len(LAYERS) - i)
        left = change_DF @ (0.5 * constants.tensors[f"second_moment/{layer}"] + K_FE @ K_FE.T)
        right = R_DE @ K_FE.T
        assert float((left - right).norm() / right.norm()) < 1e-5
        lm.apply(Update({lm.mlp_out_name(layer): update.changes[lm.mlp_out_name(layer)]}))


def test_with_little_weight_on_the_rest_the_streams_reach_their_targets(make_lm, family, fact, second_fact):
    """λ → 0: the last block closes what is missing at the keys; with the bare prompt alone, keys are the prompt's."""
    lm = make_lm(family)
    memit = method(second_moment_weight=1e-8)
    bare = replace(prepared(lm), contexts=("",))
    requests = [fact, second_fact]
    z_DE = torch.stack([optimise_targets(lm, [r], ("",), LAYERS[-1], memit)[0].z_D for r in requests], 1)
    update, _ = memit.update(lm, requests, bare, State())
    assert update.diagnostics["missing_share"] < 1e-3
    lm.apply(update)
    assert_close(subject_streams(lm, requests, LAYERS[-1]), z_DE, rtol=1e-3, atol=1e-3)


def test_update_mutates_nothing(make_lm, family, fact):
    lm = make_lm(family)
    before = {name: parameter.clone() for name, parameter in lm.model.named_parameters()}
    method().update(lm, [fact], prepared(lm), State())
    assert not lm.base
    for name, parameter in lm.model.named_parameters():
        assert torch.equal(parameter, before[name]), name


def test_undone_leaves_no_trace_in_half_precision(make_lm, fact):
    lm = make_lm("llama", dtype=torch.bfloat16)
    name = lm.mlp_out_name(1)
    before = lm.model.get_parameter(name).clone()
    D, F = lm.widths(1)
    with lm.undone([1]):
        lm.apply(Update({name: LowRank(torch.ones(D, 1), torch.ones(F, 1))}))
        assert not torch.equal(lm.model.get_parameter(name), before)
    assert torch.equal(lm.model.get_parameter(name), before)
    assert not lm._masters
    assert not lm.base


def test_the_target_is_likelier_with_the_stream_that_is_written(make_lm, family, fact, plain_pass):
    """Added behind block 2 of a plain forward pass, z − h lowers the target's NLL as the optimisation says."""
    lm = make_lm(family, dtype=torch.float64)
    (target,) = optimise_targets(lm, [fact], ("",), 2, method(value_steps=20, max_offset=4.0))
    assert target.diagnostics["nll_after"] < target.diagnostics["nll_before"]
    offset_D = target.z_D - subject_streams(lm, [fact], 2)[:, 0]
    ids, at = lm.locate(fact.question, fact.subject_start, len(fact.subject))
    answer = lm.answer_ids(fact.target_new)
    log_p_TV = plain_pass(lm, [*ids, *answer], 2, at, offset_D).logits_TV[len(ids) - 1 : -1].log_softmax(-1)
    nll = -float(log_p_TV[torch.arange(len(answer)), torch.tensor(answer)].mean())
    assert nll == pytest.approx(target.diagnostics["nll_after"], rel=1e-4)


def test_memit_seq_in_steps_equals_the_one_shot_solution():
    """At one block, for fixed keys and targets: W0 + (V − W0 K) Kᵀ (λ C + K Kᵀ)⁻¹ over all facts at once."""
    generator = torch.Generator().manual_seed(3)
    D, F, n = 5, 12, 7
    W_DF, keys_Fn, values_Dn = (torch.randn(shape, generator=generator, dtype=torch.float64)
                                for shape in ((D, F), (F, n), (D, n)))  # fmt: skip
    A_FF = 0.3 * spd(F)
    once = W_DF + (values_Dn - W_DF @ keys_Fn) @ regularised(A_FF, keys_Fn).T
    now = W_DF.clone()
    for start, stop in ((0, 1), (1, 4), (4, 7)):
        K, past = keys_Fn[:, start:stop], keys_Fn[:, :start]
        now = now + (values_Dn[:, start:stop] - now @ K) @ regularised(A_FF + past @ past.T, K).T
    assert_close(now, once, rtol=1e-9, atol=1e-9)
    forgetful = W_DF.clone()
    for start, stop in ((0, 1), (1, 4), (4, 7)):
        K = keys_Fn[:, start:stop]
        forgetful = forgetful + (values_Dn[:, start:stop] - forgetful @ K) @ regularised(A_FF, K).T
    assert not torch.allclose(forgetful, once, rtol=1e-2)


def test_memit_seq_protects_the_keys_written_before(make_lm, fact, second_fact):
    """The second update solves (λ C + K_past K_pastᵀ + K Kᵀ), and what it adds to the state is the keys it wrote at."""
    lm = make_lm("gpt2")
    constants, seq = prepared(lm), method(MemitSeq)
    first, state = seq.update(lm, [fact], constants, State())
    lm.apply(first)
    K1 = {layer: first.adds[f"keys/{layer}"].double() for layer in LAYERS}
    second, state = seq.update(lm, [second_fact], constants, state)
    for i, layer in enumerate(LAYERS):
        k2_F1 = second.adds[f"keys/{layer}"]
        both_F2 = torch.cat([K1[layer], k2_F1.double()], dim=1)
        assert_close(state.grams[f"keys/{layer}"], both_F2 @ both_F2.T)
        change_DF = second.changes[lm.mlp_out_name(layer)].dense()
        A_FF = 0.5 * constants.tensors[f"second_moment/{layer}"] + K1[layer] @ K1[layer].T
        moved = float((change_DF @ (A_FF + k2_F1.double() @ k2_F1.double().T)).norm())
        X_F1 = regularised(A_FF, k2_F1)
        left = second.changes[lm.mlp_out_name(layer)].left_Dr
        assert_close(change_DF, left.double() @ X_F1.T, rtol=1e-4, atol=1e-7 * moved)
        assert i == LAYERS.index(layer)


def test_the_first_update_of_memit_seq_is_memits(make_lm, fact):
    lm = make_lm("llama")
    plain, _ = method().update(lm, [fact], prepared(lm), State())
    seq, state = method(MemitSeq).update(lm, [fact], prepared(lm), State())
    for name, change in plain.changes.items():
        assert torch.equal(change.dense(), seq.changes[name].dense())
    assert sorted(state.grams) == sorted(f"keys/{layer}" for layer in LAYERS)


def test_a_model_that_normalises_the_mlps_output_is_refused_by_name(tokenizer):
    from transformers import Gemma2Config, Gemma2ForCausalLM

    from afteredit.edit.lm import LM
    from afteredit.edit.request import EditRequest

    torch.manual_seed(0)
    config = Gemma2Config(vocab_size=len(tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=3,
                          num_attention_heads=2, num_key_value_heads=1, head_dim=8, bos_token_id=0, eos_token_id=0,
                          pad_token_id=0)  # fmt: skip
    lm = LM(Gemma2ForCausalLM(config), tokenizer)
    assert not lm.writes_straight(1)
    request = EditRequest(id="x", subject="Rome", prompt="{} is in", target_new="France")
    with pytest.raises(BadInput, match="Gemma2ForCausalLM normalises"):
        method(layers=[0, 1]).update(lm, [request], Prepared(("",)), State())


def test_no_published_blocks_means_five_that_end_a_quarter_up(make_lm):
    assert Memit(layers=None).edited_layers(make_lm("gpt2")) == [0, 1]  # 4 blocks: a quarter up is block 1
    assert Memit(layers=[3, 1]).edited_layers(make_lm("gpt2")) == [1, 3]
