"""Tests KN: which neurons are chosen, and what is written into them."""

import logging
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from afteredit.edit.ingredients.neuron_attribution import Attribution, attribute
from afteredit.edit.method import Given, Prepared
from afteredit.edit.methods.kn import Kn, coarse_neurons, refine
from afteredit.store.errors import BadInput

CONTEXTS = ("The old man said that", "", "It is known", "Because of the rain")
METHOD = Kn(steps=4, threshold=0.2, share=0.5)


@pytest.fixture
def fact(fact):
    """Returns a fact whose two answers differ in their first tokens, which the edit writes."""
    return replace(fact, target_new="golf")


def updated(lm, requests, method=METHOD):
    return method.update(lm, requests, Prepared(CONTEXTS), {})


def chosen(lm, fact, method) -> dict[int, list[int]]:
    """Returns the refined neurons by block, counted one by one."""
    answer, columns = lm.tokens.answer_ids(fact.target_true, fact.question), {}
    found = [
        attribute(lm, text, answer, method.steps).scores_F
        for text in (f"The old man said that. {fact.question}", fact.question, f"It is known. {fact.question}",
                     f"Because of the rain. {fact.question}")
    ]  # fmt: skip
    for layer in range(lm.n_blocks):
        for i in range(lm.widths(layer)[1]):
            votes = sum(float(scores_F[layer][i]) > method.threshold * float(torch.cat(scores_F).max())
                        for scores_F in found)  # fmt: skip
            if votes >= method.share * len(found):
                columns.setdefault(layer, []).append(i)
    return columns


@pytest.fixture
def lm(make_lm, family):
    return make_lm(family, start_token="<s>" if family == "llama" else None)


def test_coarse_neurons_are_those_above_a_share_of_the_largest_score_of_all_blocks():
    attribution = Attribution([torch.tensor([0.3, 1.0, -5.0]), torch.tensor([2.0, 0.41, 0.39])], [0.0, 0.0])
    assert coarse_neurons(attribution, 0.2) == {(0, 1), (1, 0), (1, 1)}
    assert coarse_neurons(attribution, 0.5) == {(1, 0)}  # 1.0 is not above it


def test_no_neuron_is_coarse_where_none_speaks_for_the_answer():
    for scores_F in (torch.tensor([-1.0, -2.0]), torch.zeros(2), torch.full((2,), torch.nan)):
        assert coarse_neurons(Attribution([scores_F], [0.0]), 0.2) == set()


@pytest.mark.parametrize(("share", "kept"), [(0.0, 3), (0.2, 3), (0.4, 2), (0.6, 1), (0.61, 0), (1.0, 0)])
def test_refined_neurons_are_coarse_in_at_least_their_share_of_the_prompts(share, kept):
    neurons = [(0, 7), (3, 1), (0, 2)]  # in three, two and one of five prompts
    coarse = [set(neurons), set(neurons[:2]), set(neurons[:1]), set(), set()]
    assert refine(coarse, share) == sorted(neurons[:kept])


def test_refined_neurons_get_the_stated_vector_and_nothing_else_changes(lm, fact):
    before = {name: parameter.clone() for name, parameter in lm.model.named_parameters()}
    matrices = [lm.weights.W(lm.mlp_out_name(layer)).clone() for layer in range(lm.n_blocks)]
    expected = chosen(lm, fact, METHOD)
    embed = lm.model.get_input_embeddings().weight
    new_D, true_D = (embed[lm.tokens.answer_ids(answer, fact.question)[0]].double() for answer in ("golf", "baseball"))
    assert not torch.equal(new_D, true_D)
    update = updated(lm, [fact])
    assert sum(map(len, expected.values())) == update.diagnostics["n_neurons"] > 3
    assert set(update.changes) == {lm.mlp_out_name(layer) for layer in expected}
    lm.weights.add(update.changes)
    for layer, W_DF in enumerate(matrices):
        change_DF = lm.weights.W(lm.mlp_out_name(layer)) - W_DF
        columns = expected.get(layer, [])
        assert change_DF.abs().sum(0).nonzero()[:, 0].tolist() == columns
        for i in columns:
            length = W_DF[:, i].double().norm()
            expected_D = length * (8 * new_D / new_D.norm() - 1 * true_D / true_D.norm())
            assert_close(change_DF[:, i].double(), expected_D, rtol=1e-5, atol=1e-5 * float(length))
    edited = {lm.mlp_out_name(layer) for layer in expected}
    assert all(torch.equal(p, before[name]) for name, p in lm.model.named_parameters() if name not in edited)


def test_the_weights_of_the_two_answers_are_settings(lm, fact):
    whole, only_new, only_true = (
        updated(lm, [fact], replace(METHOD, lambda_new=new, lambda_true=true)) for new, true in ((3, 2), (1, 0), (0, 1))
    )
    assert whole.changes
    for name, change in whole.changes.items():
        assert_close(change.dense(), 3 * only_new.changes[name].dense() + 2 * only_true.changes[name].dense(),
                     rtol=1e-5, atol=1e-6)  # fmt: skip


def test_lengths_are_those_of_the_unedited_columns(lm, fact):
    """λ is in lengths of an unedited column: with edited ones, every fact that shares a neuron would multiply it."""
    lm.weights.keep_base(METHOD.edited(lm))
    base = {layer: lm.weights.W(lm.mlp_out_name(layer)).clone() for layer in range(lm.n_blocks)}
    lm.weights.add(updated(lm, [fact]).changes)
    again = updated(lm, [replace(fact, target_true="golf", target_new="baseball")])
    expected = {lm.mlp_out_name(layer): W_DF.norm(dim=0) for layer, W_DF in base.items()}
    assert again.changes
    for name, change in again.changes.items():
        (right_F,) = change.tensors()["right_Fr"].T
        assert_close(right_F[right_F > 0], expected[name][right_F > 0])


def test_a_batch_is_the_sum_of_its_requests_on_the_same_weights(lm, fact):
    other = replace(fact, id="f2", subject="Hank Aaron", target_true="chess", target_new="rugby")
    both, first, second = updated(lm, [fact, other]), updated(lm, [fact]), updated(lm, [other])
    assert first.changes and second.changes
    assert set(both.changes) == set(first.changes) | set(second.changes)
    for name, change in both.changes.items():
        alone = sum(update.changes[name].dense() for update in (first, second) if name in update.changes)
        assert torch.equal(change.dense(), alone)
    assert updated(lm, [other, fact]).diagnostics == both.diagnostics
    for name, joined in (("n_neurons", sum), ("completeness_error", max)):
        assert both.diagnostics[name] == joined([first.diagnostics[name], second.diagnostics[name]])
    assert both.diagnostics["n_coarse"] == pytest.approx(
        (first.diagnostics["n_coarse"] + second.diagnostics["n_coarse"]) / 2
    )


def test_diagnostics_count_coarse_neurons_and_speak_of_the_bare_prompt(lm, fact):
    answer = lm.tokens.answer_ids(fact.target_true, fact.question)
    bare = attribute(lm, fact.question, answer, METHOD.steps)
    update = METHOD.update(lm, [fact], Prepared(("",)), {})
    n_coarse = len(coarse_neurons(bare, METHOD.threshold))
    assert update.diagnostics["n_coarse"] == update.diagnostics["n_neurons"] == n_coarse
    found = updated(lm, [fact]).diagnostics
    assert found["completeness_error"] == bare.completeness_error()
    assert found["n_neurons"] <= 2 * found["n_coarse"]  # half of four prompts at least have each neuron


def test_no_shared_neuron_is_an_update_without_changes_and_the_keys_that_decide_it_are_named(lm, fact, caplog):
    caplog.set_level(logging.INFO, "afteredit")
    update = updated(lm, [replace(fact, place="facts.csv:7")], replace(METHOD, threshold=1.0))
    assert f"edit {fact.id} (facts.csv:7): no neuron" in caplog.text
    assert "method.threshold" in caplog.text and "method.share" in caplog.text
    assert update.changes == {}
    assert update.diagnostics["n_neurons"] == update.diagnostics["n_coarse"] == 0
    lm.weights.add(update.changes)
    assert not lm.weights.base


def test_update_mutates_nothing_and_reads_no_evaluation_data(lm, fact):
    before = {name: parameter.clone() for name, parameter in lm.model.named_parameters()}
    update = METHOD.update(lm, [fact], Prepared(CONTEXTS), {})
    assert not lm.weights.base
    for name, parameter in lm.model.named_parameters():
        assert torch.equal(parameter, before[name]), name
    blind = replace(fact, paraphrases=(), neighbourhood=(), neighbourhood_answers=())
    same = updated(lm, [blind]).flat()
    assert all(torch.equal(tensor, same[name]) for name, tensor in update.flat().items())


def test_a_request_without_a_true_answer_is_refused_by_name(lm, fact):
    with pytest.raises(BadInput, match="edit f1 has no target_true"):
        updated(lm, [replace(fact, target_true=None)])


@pytest.mark.parametrize("bad", [{"steps": 0}, {"threshold": 1.5}, {"share": -0.1}], ids=str)
def test_settings_out_of_range_are_refused_by_their_key(bad):
    with pytest.raises(BadInput, match=f"method.{next(iter(bad))}="):
        Kn(**bad)


def test_prompts_are_the_bare_one_and_sampled_contexts(lm):
    prepared = Kn(contexts=3).prepare(lm, Given(seed=4, training=list))
    assert prepared.contexts[0] == "" and len(prepared.contexts) == 4 and all(prepared.contexts[1:])
    assert Kn(contexts=3).prepare(lm, Given(seed=4, training=list)) == prepared
    assert Kn(contexts=0).prepare(lm, Given(seed=4, training=list)).contexts == ("",)
