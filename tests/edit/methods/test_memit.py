"""Tests MEMIT and MEMIT_seq on tiny models of three families: normal equations, block order, one-shot equality."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from afteredit.edit.constraint import Unconstrained
from afteredit.edit.editor import Editor
from afteredit.edit.ingredients import context_prefixes as contexts
from afteredit.edit.ingredients import second_moment
from afteredit.edit.ingredients.least_squares import factors, solve_regularised
from afteredit.edit.ingredients.subject_keys import subject_keys, subject_mlp_outputs, subject_streams
from afteredit.edit.ingredients.value_search import optimise_streams
from afteredit.edit.ingredients.value_settings import ValueNorm
from afteredit.edit.method import Given, Prepared
from afteredit.edit.methods.alphaedit import AlphaEdit
from afteredit.edit.methods.ft import Ft
from afteredit.edit.methods.memit import Memit
from afteredit.edit.methods.memit_seq import MemitSeq
from afteredit.edit.update import LowRank
from afteredit.model.lm import LM
from afteredit.store.errors import BadInput
from afteredit.tests.tiny.models import TOKENS, random_model, randomised

CONTEXTS = ("", "The old man said that", "It is known")
LAYERS = [0, 1, 2]


def spd(size: int, seed: int = 0) -> torch.Tensor:
    sample_NF = torch.randn(4 * size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return sample_NF.T @ sample_NF / len(sample_NF) + 0.05 * torch.eye(size, dtype=torch.float64)


def method(cls=Memit, **keys):
    return cls(**{"layers": LAYERS, "second_moment_weight": 0.5, "value_steps": 8, "weight_decay": 0.0, **keys})


def prepared(lm) -> Prepared:
    moments = {f"second_moment/{layer}": spd(lm.widths(layer)[1], layer) for layer in LAYERS}
    return Prepared(CONTEXTS, moments, factors=factors(moments))


def test_every_blocks_change_solves_its_normal_equations(make_lm, family, fact, second_fact):
    """Δ_l (λ C_l + K_l K_lᵀ) = R_l K_lᵀ, with keys and residuals of the model as it is before block l is edited."""
    lm = make_lm(family, start_token="<s>" if family == "llama" else None)
    requests, constants, memit = [fact, second_fact], prepared(lm), method()
    update = memit.update(lm, requests, constants, {})
    z_DE = torch.stack([optimise_streams(lm, [r], CONTEXTS, LAYERS[-1], memit)[0].z_D for r in requests], 1).double()
    for i, layer in enumerate(LAYERS):
        change_DF = update.changes[lm.mlp_out_name(layer)].dense()
        K_FE = subject_keys(lm, requests, CONTEXTS, layer).double()
        R_DE = (z_DE - subject_streams(lm, requests, LAYERS[-1]).double()) / (len(LAYERS) - i)
        left = change_DF @ (0.5 * constants.tensors[f"second_moment/{layer}"] + K_FE @ K_FE.T)
        right = R_DE @ K_FE.T
        assert float((left - right).norm() / right.norm()) < 1e-5
        lm.weights.add({lm.mlp_out_name(layer): update.changes[lm.mlp_out_name(layer)]})


def test_with_little_weight_on_the_rest_the_streams_reach_their_targets(make_lm, family, fact, second_fact):
    """As λ → 0 the last block removes the residual at the keys; with the bare prompt alone these are the prompt's."""
    lm = make_lm(family)
    memit = method(second_moment_weight=1e-8)
    bare = replace(prepared(lm), contexts=("",))
    requests = [fact, second_fact]
    z_DE = torch.stack([optimise_streams(lm, [r], ("",), LAYERS[-1], memit)[0].z_D for r in requests], 1)
    update = memit.update(lm, requests, bare, {})
    assert update.diagnostics["missing_share"] < 1e-3
    lm.weights.add(update.changes)
    assert_close(subject_streams(lm, requests, LAYERS[-1]), z_DE, rtol=1e-3, atol=1e-3)


def test_update_mutates_nothing(make_lm, family, fact):
    lm = make_lm(family)
    before = {name: parameter.clone() for name, parameter in lm.model.named_parameters()}
    method().update(lm, [fact], prepared(lm), {})
    assert not lm.weights.base
    for name, parameter in lm.model.named_parameters():
        assert torch.equal(parameter, before[name]), name


def test_undone_leaves_no_trace_in_half_precision(make_lm, fact):
    lm = make_lm("llama", dtype=torch.bfloat16)
    name = lm.mlp_out_name(1)
    before = lm.model.get_parameter(name).clone()
    D, F = lm.widths(1)
    with lm.weights.undone([lm.mlp_out_name(1)]):
        lm.weights.add({name: LowRank(torch.ones(D, 1), torch.ones(F, 1))})
        assert not torch.equal(lm.model.get_parameter(name), before)
    assert torch.equal(lm.model.get_parameter(name), before)
    assert not lm.weights._masters
    assert not lm.weights.base


def test_the_target_is_likelier_with_the_stream_that_is_written(make_lm, family, fact, plain_pass):
    """Added after block 2 of a plain forward pass, z − h lowers the target's NLL as the optimisation reports."""
    lm = make_lm(family, dtype=torch.float64)
    (target,) = optimise_streams(lm, [fact], ("",), 2, method(value_steps=20, max_offset=4.0))
    assert target.diagnostics["nll_after"] < target.diagnostics["nll_before"]
    offset_D = target.z_D - subject_streams(lm, [fact], 2)[:, 0]
    ids, at = lm.tokens.locate(fact.question, fact.subject_start, len(fact.subject))
    answer = lm.tokens.answer_ids(fact.target_new, fact.question)
    log_p_TV = plain_pass(lm, [*ids, *answer], 2, at, offset_D).logits_TV[len(ids) - 1 : -1].log_softmax(-1)
    nll = -float(log_p_TV[torch.arange(len(answer)), torch.tensor(answer)].mean())
    assert nll == pytest.approx(target.diagnostics["nll_after"], rel=1e-4)


def test_memit_seq_in_steps_equals_the_one_shot_solution():
    """At one block, for fixed keys and targets, both are W0 + (V − W0 K) Kᵀ (λ C + K Kᵀ)⁻¹ over all facts."""
    generator = torch.Generator().manual_seed(3)
    D, F, n = 5, 12, 7
    W_DF, keys_Fn, values_Dn = (torch.randn(shape, generator=generator, dtype=torch.float64)
                                for shape in ((D, F), (F, n), (D, n)))  # fmt: skip
    A_FF = 0.3 * spd(F)
    once = W_DF + (values_Dn - W_DF @ keys_Fn) @ solve_regularised(A_FF, keys_Fn).T
    now = W_DF.clone()
    for start, stop in ((0, 1), (1, 4), (4, 7)):
        K, past = keys_Fn[:, start:stop], keys_Fn[:, :start]
        now = now + (values_Dn[:, start:stop] - now @ K) @ solve_regularised(A_FF + past @ past.T, K).T
    assert_close(now, once, rtol=1e-9, atol=1e-9)
    forgetful = W_DF.clone()
    for start, stop in ((0, 1), (1, 4), (4, 7)):
        K = keys_Fn[:, start:stop]
        forgetful = forgetful + (values_Dn[:, start:stop] - forgetful @ K) @ solve_regularised(A_FF, K).T
    assert not torch.allclose(forgetful, once, rtol=1e-2)


@pytest.fixture
def three_facts(fact, second_fact):
    third = replace(fact, id="f3", subject="Peru", prompt="The banknotes of {} carry the name of", target_new="rand")
    return [fact, second_fact, third]


def test_memit_seq_batch_after_batch_equals_the_one_shot_solution_on_a_model(make_lm, family, three_facts):
    """Compares with W0 + (Z − H) Kᵀ (λ C + K Kᵀ)⁻¹ by NumPy over all facts.  At one block with the bare prompt alone
    keys are fixed, since an edit does not change the input of its own matrix; the targets are passed in."""
    lm = make_lm(family, start_token="<s>" if family == "llama" else None)
    seq, plain = method(MemitSeq, layers=[1]), method(layers=[1])
    targets = optimise_streams(lm, three_facts, ("",), 1, seq)
    values = {request.id: target for request, target in zip(three_facts, targets, strict=True)}
    fixed = replace(prepared(lm), contexts=("",), values=values)
    K = subject_keys(lm, three_facts, ("",), 1).double().numpy()
    H = subject_streams(lm, three_facts, 1).double().numpy()
    Z = torch.stack([target.z_D for target in targets], dim=1).double().numpy()
    C = fixed.tensors["second_moment/1"].numpy()
    once_DF = torch.from_numpy((Z - H) @ K.T @ np.linalg.inv(0.5 * C + K @ K.T))

    def added_up(memit: Memit) -> tuple[torch.Tensor, dict]:
        total_DF, state = torch.zeros_like(once_DF), {}
        for batch in (three_facts[:1], three_facts[1:]):
            update = memit.update(lm, batch, fixed, state)
            state = memit.extend(state, update, fixed)
            lm.weights.add(update.changes)
            total_DF += update.changes[lm.mlp_out_name(1)].dense()
        lm.weights.restore()
        return total_DF, state

    tolerance = 1e-4 * float(once_DF.abs().max())
    in_steps_DF, state = added_up(seq)
    assert_close(in_steps_DF, once_DF, rtol=0, atol=tolerance)
    assert_close(state["keys/1"], torch.from_numpy(K @ K.T), rtol=1e-5, atol=1e-6)
    together = seq.update(lm, three_facts, fixed, {})
    assert_close(together.changes[lm.mlp_out_name(1)].dense(), once_DF, rtol=0, atol=tolerance)
    forgetful_DF, _ = added_up(plain)
    assert float((forgetful_DF - once_DF).abs().max()) > 100 * tolerance


def test_memit_seq_protects_the_keys_written_before(make_lm, family, fact, second_fact):
    """The second update solves Δ (λ C + K_p K_pᵀ + k kᵀ) = r kᵀ, with r and k of the model as it is before the block is
    edited.  It adds its own key to the state."""
    lm = make_lm(family)
    constants, seq = prepared(lm), method(MemitSeq)
    first = seq.update(lm, [fact], constants, {})
    state = seq.extend({}, first, constants)
    lm.weights.add(first.changes)
    z_D = optimise_streams(lm, [second_fact], CONTEXTS, LAYERS[-1], seq)[0].z_D.double()
    second = seq.update(lm, [second_fact], constants, state)
    state = seq.extend(state, second, constants)
    for i, layer in enumerate(LAYERS):
        past_F1, k_F1 = first.adds[f"keys/{layer}"].double(), second.adds[f"keys/{layer}"].double()
        assert_close(k_F1, subject_keys(lm, [second_fact], CONTEXTS, layer).double(), rtol=1e-5, atol=1e-6)
        both_F2 = torch.cat([past_F1, k_F1], dim=1)
        assert_close(state[f"keys/{layer}"], both_F2 @ both_F2.T)
        r_D1 = (z_D[:, None] - subject_streams(lm, [second_fact], LAYERS[-1]).double()) / (len(LAYERS) - i)
        change = second.changes[lm.mlp_out_name(layer)]
        left = change.dense() @ (0.5 * constants.tensors[f"second_moment/{layer}"] + both_F2 @ both_F2.T)
        right = r_D1 @ k_F1.T
        assert float((left - right).norm() / right.norm()) < 1e-4
        lm.weights.add({lm.mlp_out_name(layer): change})


def test_the_first_update_of_memit_seq_is_memits(make_lm, fact):
    lm = make_lm("llama")
    plain = method().update(lm, [fact], prepared(lm), {})
    seq = method(MemitSeq).update(lm, [fact], prepared(lm), {})
    for name, change in plain.changes.items():
        assert torch.equal(change.dense(), seq.changes[name].dense())
    assert sorted(seq.adds) == sorted(f"keys/{layer}" for layer in LAYERS)


# ---- facts of one subject (MEMIT-Merge)


@pytest.fixture
def same_subject(fact, second_fact):
    """Two facts of one subject with a third between them."""
    other = replace(fact, id="f4", prompt="{} was born in the town of", target_new="Turin", relation="birthplace")
    return [fact, second_fact, other]


def shared_offset_by_hand(lm, facts, layer: int, steps: int, rate: float) -> torch.Tensor:
    """Returns the offset that plain Adam finds for the mean NLL of the facts' answers, one plain pass per fact."""
    offset_D = torch.zeros(lm.widths(layer)[0], dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([offset_D], lr=rate)
    for _ in range(steps):
        losses = []
        for request in facts:
            ids, at = lm.tokens.locate(request.question, request.subject_start, len(request.subject))
            answer = lm.tokens.answer_ids(request.target_new, request.question)

            def add(_module, _args, output, at=at):
                hidden = output[0] if isinstance(output, tuple) else output
                row = torch.nn.functional.one_hot(torch.tensor(at), hidden.shape[1]).to(hidden)
                moved = hidden + row[None, :, None] * offset_D
                return (moved, *output[1:]) if isinstance(output, tuple) else moved

            hook = lm.anatomy.blocks[layer].register_forward_hook(add)
            with torch.enable_grad():
                logits_TV = lm.model(torch.tensor([[*ids, *answer]]), use_cache=False).logits[0]
            hook.remove()
            log_p_TV = logits_TV[len(ids) - 1 : -1].log_softmax(-1)
            losses.append(-log_p_TV[torch.arange(len(answer)), torch.tensor(answer)].mean())
        adam.zero_grad()
        torch.stack(losses).mean().backward()
        adam.step()
    return offset_D.detach()


@pytest.mark.parametrize("cls", [Memit, MemitSeq])
def test_facts_of_one_subject_share_a_key_and_an_offset(make_lm, family, same_subject, cls):
    """The offset is that of plain Adam on the mean loss; Δ solves the normal equations of two columns by NumPy: the
    subject's, with the means of its facts' keys and of what they lack, and the other fact's."""
    lm = make_lm(family, dtype=torch.float64)
    memit = method(cls, layers=[1], kl_weight=0.0, max_offset=1e6, value_steps=5, merge_subjects=True)
    constants = replace(prepared(lm), contexts=("",))
    update = memit.update(lm, same_subject, constants, {})
    first, other, second = same_subject
    offsets = [shared_offset_by_hand(lm, facts, 1, 4, 0.5) for facts in ([first, second], [other])]
    keys_FE = subject_keys(lm, same_subject, ("",), 1).double().numpy()
    K = np.stack([(keys_FE[:, 0] + keys_FE[:, 2]) / 2, keys_FE[:, 1]], axis=1)
    R = torch.stack(offsets, dim=1).numpy()
    expected = R @ K.T @ np.linalg.inv(0.5 * constants.tensors["second_moment/1"].numpy() + K @ K.T)
    change = update.changes[lm.mlp_out_name(1)]
    assert change.left_Dr.shape[1] == 2
    assert np.linalg.norm(change.dense().numpy() - expected) < 1e-3 * np.linalg.norm(expected)
    if cls is MemitSeq:
        assert_close(update.adds["keys/1"].double(), torch.from_numpy(K), rtol=1e-5, atol=1e-6)


def test_without_a_repeated_subject_merging_changes_no_bit(make_lm, fact, second_fact):
    lm = make_lm("llama")
    plain, merging = (method(merge_subjects=merge).update(lm, [fact, second_fact], prepared(lm), {})
                      for merge in (False, True))  # fmt: skip
    for name, change in plain.changes.items():
        assert torch.equal(change.dense(), merging.changes[name].dense())


def test_merging_never_joins_facts_of_different_batches(make_lm, same_subject):
    """Where every batch edits the unedited model, values are found ahead, for facts of several batches at once."""
    lm, memit = make_lm("llama"), method(merge_subjects=True)
    editor = Editor(lm, memit, Unconstrained(), prepared(lm), planned=same_subject, single=True)
    update = editor.write(same_subject[:1])
    alone = method().update(lm, same_subject[:1], prepared(lm), {})
    assert all(torch.equal(change.dense(), update.changes[name].dense()) for name, change in alone.changes.items())


@pytest.fixture(params=["gemma2", "gemma3_text"])
def norming_lm(request, tokenizer) -> LM:
    """A model that normalises the MLP's output before it joins the stream, with norms that scale."""
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2,
             "num_key_value_heads": 1, "head_dim": 8}  # fmt: skip
    model = randomised(random_model(request.param, len(tokenizer), **shape, **TOKENS)).eval()
    for block in model.model.layers:
        block.mlp.down_proj.weight.data *= 20  # so that the norm's epsilon is small beside it, as in real models
    return LM(model, tokenizer)


def nearest_reachable(scale_D: torch.Tensor, wanted_D: torch.Tensor) -> float:
    """Returns how near g ∘ x / rms(x) can come to what is wanted: the best of many descents over x."""
    torch.manual_seed(0)
    x_ND = torch.randn(64, len(wanted_D), dtype=torch.float64, requires_grad=True)
    descent = torch.optim.LBFGS([x_ND], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def distances_N() -> torch.Tensor:
        normed_ND = scale_D * x_ND / x_ND.square().mean(-1, keepdim=True).sqrt()
        return (normed_ND - wanted_D).square().sum(-1)

    def loss() -> torch.Tensor:
        descent.zero_grad()
        total = distances_N().sum()
        total.backward()
        return total

    descent.step(loss)
    return float(distances_N().min().sqrt())


@pytest.mark.parametrize("cls", [Memit, MemitSeq])
def test_behind_a_norm_the_stream_comes_as_near_to_z_as_the_norm_lets_it(norming_lm, fact, cls):
    lm, memit = norming_lm, method(cls, layers=[1], second_moment_weight=1e-9)
    constants = replace(prepared(lm), contexts=("",))
    scale_D = lm.capabilities.mlp_scale(1).double()
    assert not torch.allclose(scale_D, torch.ones_like(scale_D))
    (target,) = optimise_streams(lm, [fact], ("",), 1, memit)
    assert target.diagnostics["nll_after"] < target.diagnostics["nll_before"]
    stream_D, output_D = (read(lm, [fact], 1)[:, 0].double() for read in (subject_streams, subject_mlp_outputs))
    besides_D = stream_D - scale_D * output_D / output_D.square().mean().sqrt()
    lm.weights.add(memit.update(lm, [fact], constants, {}).changes)
    z_D = target.z_D.double()
    left = float((subject_streams(lm, [fact], 1)[:, 0].double() - z_D).norm())
    assert left == pytest.approx(nearest_reachable(scale_D, z_D - besides_D), rel=1e-3)
    assert left < float((stream_D - z_D).norm())


@pytest.mark.parametrize("cls", [Memit, MemitSeq, AlphaEdit])
def test_an_anchor_behind_a_norm_is_refused_before_anything_is_computed(norming_lm, monkeypatch, cls):
    monkeypatch.setattr(contexts, "sample_contexts", None)
    monkeypatch.setattr(second_moment, "second_moments", None)
    with pytest.raises(BadInput, match="value_norm=anchor, but Gemma.* use method.value_norm=none"):
        cls(layers=[0, 1], value_norm=ValueNorm.anchor).prepare(norming_lm, Given(0, list))


def test_no_published_blocks_means_five_that_end_a_quarter_up(make_lm):
    assert Memit(layers=None).edited_layers(make_lm("gpt2")) == [0, 1]  # 4 blocks: a quarter up is block 1
    assert Memit(layers=[3, 1]).edited_layers(make_lm("gpt2")) == [1, 3]


@pytest.mark.parametrize("cls", [Memit, MemitSeq, AlphaEdit, Ft])
def test_the_log_says_once_which_blocks_stand_in_for_published_ones_and_by_what_rule(
    make_lm, fact, tmp_path, monkeypatch, caplog, cls
):
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path / "cache"))
    text = tmp_path / "text.txt"
    text.write_text("The old town has a market, and people come to buy fish and bread.\n" * 60, encoding="utf-8")
    keys = {} if cls is Ft else {"second_moment_text": str(text), "tokens_per_key_dim": 8, "contexts": 0}
    blocks, rule = ("[0]", "the lowest one") if cls is Ft else ("[0, 1]", "five that end a quarter of the way up")
    if cls is AlphaEdit:
        keys["threshold"] = 1e6  # every direction: these keys are few
    for layers, times in ((None, 1), ([0, 1], 0)):
        lm, memit = make_lm("gpt2"), cls(layers=layers, **keys)
        caplog.clear()
        state = {}
        constants = memit.prepare(lm, Given(0, list))
        for _ in range(2):
            state = memit.extend(state, memit.update(lm, [fact], constants, state), constants)
        said = [message for message in caplog.messages if "method.layers" in message]
        assert len(said) == times
        assert all(f"blocks {blocks} of 4" in message and rule in message for message in said)
