"""Tests MEND's edit against autograd and against the sum over a batch, and tests what `prepare` stores."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from afteredit.edit.edit_set import EditSet
from afteredit.edit.hypernetwork import training
from afteredit.edit.hypernetwork.network import Hypernetwork, loaded
from afteredit.edit.hypernetwork.token_gradients import Answers, each_row_changed, gradient_terms
from afteredit.edit.method import Given, Prepared
from afteredit.edit.methods import mend as mend_module
from afteredit.edit.methods.mend import Mend
from afteredit.model.weights import is_transposed
from afteredit.store.errors import BadInput

METHOD = Mend(n_layers=2, rank=6)
LAYERS = [2, 3]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def lm(make_lm, family):
    return make_lm(family, start_token="<s>" if family == "llama" else None)


@pytest.fixture
def requests(fact):
    return [
        fact,
        replace(fact, id="f2", subject="Peru", prompt="The banknotes of {} carry the name of", target_new="rand"),
    ]


def network_of(lm) -> Hypernetwork:
    return Hypernetwork([lm.widths(layer) for layer in LAYERS], METHOD.rank).start(METHOD.alpha, 0)


@pytest.fixture
def stirred(lm, requests) -> Prepared:
    """Returns a hypernetwork whose parameters were moved and whose statistics come from the requests' own terms."""
    network = network_of(lm)
    generator = torch.Generator().manual_seed(3)
    asked = [(request.question, request.target_new) for request in requests]
    terms, _ = gradient_terms(lm, Answers(lm, asked, LAYERS))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    for matrix, layer in enumerate(LAYERS):
        network.observe(matrix, terms[layer].keys_NF, terms[layer].deltas_ND)
    return Prepared(tensors=dict(network.state_dict()))


def test_at_the_start_an_edit_is_one_step_of_gradient_descent(lm, requests):
    """The result is W − α∇W, by autograd on the plain model's weights, summed over the requests of a batch."""
    weights = [lm.mlp_out(layer).weight.requires_grad_() for layer in LAYERS]
    for request in requests:
        ids, target = lm.tokens.encode(request.question), lm.tokens.answer_ids(request.target_new, request.question)
        logits_TV = lm.model(input_ids=torch.tensor([[*ids, *target]])).logits[0, len(ids) - 1 : -1]
        torch.nn.functional.cross_entropy(logits_TV, torch.tensor(target)).backward()
    gradients = [weight.grad.T if is_transposed(lm.mlp_out(layer)) else weight.grad
                 for layer, weight in zip(LAYERS, weights, strict=True)]  # fmt: skip
    lm.model.requires_grad_(False)
    update = METHOD.update(lm, requests, Prepared(tensors=network_of(lm).state_dict()), {})
    assert list(update.changes) == [lm.mlp_out_name(layer) for layer in LAYERS]
    for change, gradient_DF in zip(update.changes.values(), gradients, strict=True):
        expected_DF = -METHOD.alpha * gradient_DF.double()
        assert_close(change.dense(), expected_DF, rtol=0, atol=1e-5 * float(expected_DF.abs().max()))


def test_a_batch_is_the_sum_of_its_requests_edits(lm, requests, stirred, monkeypatch):
    together = METHOD.update(lm, requests, stirred, {})
    apart = [METHOD.update(lm, [request], stirred, {}) for request in requests]
    monkeypatch.setattr(mend_module, "FACTS_AT_ONCE", 1)
    in_parts = METHOD.update(lm, requests, stirred, {})
    for name, change in together.changes.items():
        expected_DF = sum(update.changes[name].dense() for update in apart)
        assert float(expected_DF.norm()) > 0.01
        for found in (change, in_parts.changes[name]):
            assert_close(found.dense(), expected_DF, rtol=0, atol=1e-4 * float(expected_DF.abs().max()))


def test_training_sees_each_row_as_its_edit_will_leave_the_model(lm, requests, stirred, plain_nll):
    """Training adds factors in a row's own pass: that agrees with adding the update to the weights and a plain pass."""
    network = loaded([lm.widths(layer) for layer in LAYERS], METHOD.rank, stirred.tensors)
    asked = [(request.question, request.target_new) for request in requests]
    answers = Answers(lm, asked, LAYERS)
    terms, before_B = gradient_terms(lm, answers)
    with torch.no_grad():
        factors = {layer: tuple(map(terms[layer].by_row, network(i, terms[layer].keys_NF, terms[layer].deltas_ND)))
                   for i, layer in enumerate(LAYERS)}  # fmt: skip
        with each_row_changed(lm, factors):
            nll_B, _ = answers.outcome()
    assert float((nll_B - before_B).abs().min()) > 0.01
    for row, request in enumerate(requests):
        update = METHOD.update(lm, [request], stirred, {})
        lm.weights.add(update.changes)
        expected = plain_nll(
            lm, lm.tokens.encode(request.question), lm.tokens.answer_ids(request.target_new, request.question)
        )
        lm.weights.restore()
        assert_close(nll_B[row], expected, rtol=1e-4, atol=1e-4)


def test_update_mutates_nothing_and_reads_the_model_as_it_is_now(lm, requests, stirred):
    before = {name: parameter.clone() for name, parameter in lm.model.named_parameters()}
    constants = {name: tensor.clone() for name, tensor in stirred.tensors.items()}
    update = METHOD.update(lm, requests, stirred, {})
    assert not lm.weights.base
    for name, parameter in lm.model.named_parameters():
        assert torch.equal(parameter, before[name]), name
        assert not parameter.requires_grad
    assert all(torch.equal(tensor, constants[name]) for name, tensor in stirred.tensors.items())
    lm.weights.add(update.changes)
    later = METHOD.update(lm, requests, stirred, {})
    name = lm.mlp_out_name(LAYERS[0])
    assert not torch.allclose(later.changes[name].dense(), update.changes[name].dense())


def test_factors_and_diagnostics(lm, requests, stirred, plain_nll):
    update = METHOD.update(lm, requests, stirred, {})
    start = METHOD.update(lm, requests, Prepared(tensors=network_of(lm).state_dict()), {})
    for change in update.changes.values():
        for factor in change.tensors().values():
            assert factor.dtype == torch.float32
            assert factor.device.type == "cpu"
            assert factor.is_contiguous()
            assert not factor.requires_grad
    nll = [
        plain_nll(lm, lm.tokens.encode(request.question), lm.tokens.answer_ids(request.target_new, request.question))
        for request in requests
    ]
    norm = float(torch.stack([change.dense().norm() for change in update.changes.values()]).norm())
    gradient = float(torch.stack([change.dense().norm() for change in start.changes.values()]).norm()) / METHOD.alpha
    assert update.diagnostics["loss_before"] == pytest.approx(float(sum(nll)) / 2, rel=1e-4)
    assert update.diagnostics["update_norm"] == pytest.approx(norm, rel=1e-5)
    assert update.diagnostics["gradient_norm"] == pytest.approx(gradient, rel=1e-4)
    assert update.diagnostics["n_terms"] == sum(change.right_Fr.shape[1] for change in update.changes.values())


def test_the_last_blocks_are_edited_and_more_than_there_are_is_refused(make_lm):
    lm = make_lm("llama")
    assert Mend().edited_layers(lm) == [1, 2, 3]
    with pytest.raises(BadInput, match=r"method.n_layers=5, but the model has 4 blocks"):
        Mend(n_layers=5).edited_layers(lm)
    with pytest.raises(BadInput, match=r"method.batch=0"):
        Mend(batch=0)


def test_an_edit_set_without_training_split_is_refused_by_name(make_lm):
    edits = EditSet(name="mine", file="facts.jsonl", columns={})
    with pytest.raises(BadInput, match=r"edits=mine has no training split"):
        METHOD.prepare(make_lm("llama"), Given(0, lambda: edits.training("mini")))


def test_training_rows_that_are_evaluation_rows_are_refused_before_training(make_lm, monkeypatch):
    monkeypatch.setattr(training, "trained", None)
    columns = {name: name for name in ("id", "subject", "prompt", "target_new")}
    edits = EditSet(name="mine", file="facts.jsonl", columns=columns, train="facts.jsonl")
    with pytest.raises(BadInput, match=r"edits=mine: all 200 facts of the training split .*facts.jsonl.*edits.train"):
        METHOD.prepare(make_lm("llama"), Given(0, lambda: edits.training("mini")))


def test_a_cached_network_is_used_without_training_again(make_lm, requests, monkeypatch):
    lm, calls = make_lm("llama"), []

    class Counted:
        def __init__(self, lm, layers, rows, settings):
            calls.append((settings, len(rows)))

        def run(self, checkpoint):
            return network_of(lm).state_dict()

    monkeypatch.setattr(training, "Training", Counted)
    first = METHOD.prepare(lm, Given(0, lambda: requests))
    again = METHOD.prepare(lm, Given(7, lambda: requests))  # another seed of a sweep
    assert calls == [(METHOD, 2)]
    assert first.hashes == again.hashes
    assert set(first.hashes) == {"hypernetwork"}
    assert all(torch.equal(tensor, again.tensors[name]) for name, tensor in first.tensors.items())
    METHOD.update(lm, requests, again, {})
    replace(METHOD, checkpoint_minutes=0.1, max_skipped=3).prepare(lm, Given(0, lambda: requests))
    assert len(calls) == 1  # the name holds only what decides the network


@pytest.mark.parametrize(
    "change", [{"rank": 7}, {"steps": 3}, {"batch": 3}, {"learning_rate": 1e-3}, {"alpha": 1e-3}, {"edit_weight": 0.2},
               {"alpha_learning_rate": 1e-3}, {"max_gradient": 1.0}, {"validate_every": 7}, {"n_layers": 1}]
)  # fmt: skip
def test_whatever_decides_the_network_is_in_its_name(make_lm, requests, monkeypatch, change):
    lm = make_lm("llama")
    stand_in = SimpleNamespace(run=lambda _checkpoint: {"alpha_M": torch.zeros(2)})
    monkeypatch.setattr(training, "Training", lambda *_: stand_in)
    hashes = [method.prepare(lm, Given(0, lambda: requests)).hashes for method in (METHOD, replace(METHOD, **change))]
    hashes.append(METHOD.prepare(lm, Given(0, lambda: requests[:1])).hashes)
    hashes.append(METHOD.prepare(make_lm("gpt2"), Given(0, lambda: requests)).hashes)
    assert len({digest["hypernetwork"] for digest in hashes}) == 4
