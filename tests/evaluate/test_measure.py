"""A checkpoint measures everything and changes nothing."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from afteredit.edit.update import LowRank
from afteredit.evaluate import measure, panels
from afteredit.evaluate.inference.held_out import held_out_windows
from afteredit.evaluate.measure import Measure, generators_kept
from afteredit.evaluate.metrics.drift import spectral_norm
from afteredit.evaluate.metrics.editing_success import means, respond
from afteredit.evaluate.metrics.fluency import fluency


def drawn() -> tuple:
    return random.random(), np.random.rand(), float(torch.rand(()))


@pytest.mark.parametrize("fails", [False, True])
def test_generators_are_restored_even_when_they_are_reseeded_inside(fails):
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    expected = drawn()
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    try:
        with generators_kept():
            random.seed(1), np.random.seed(1), torch.manual_seed(1)
            inside = drawn()
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert drawn() == expected != inside


@pytest.fixture
def lm(make_lm):
    return make_lm("gpt2")  # whose matrices are stored transposed


def edit(lm, seed: int) -> None:
    D, F = lm.widths(1)
    generator = torch.Generator().manual_seed(seed)
    left, right = torch.randn(D, 1, generator=generator), torch.randn(F, 1, generator=generator)
    lm.weights.add({lm.mlp_out_name(1): LowRank(0.5 * left, right)})


def test_a_checkpoint_has_every_key_and_leaves_the_weights_bit_identical(lm, fact):
    facts = [fact, replace(fact, id="f2", subject="Babe Ruth")]
    measure = Measure(lm, [], held_out_windows(lm, "A text that nobody has edited. " * 30, 120), facts, seed=0)
    first = measure.checkpoint([], last=False).row
    assert "drift/1/relative_norm" not in first and not any(key.startswith("editing/immediate") for key in first)

    edit(lm, 1)
    parameters = {name: p.clone() for name, p in lm.model.named_parameters()}
    before, sha = drawn_state(), lm.weights.sha256()
    recent = measure.immediate([replace(fact, id="f3")]).samples  # not measured before: W0 is put back for it
    alone = measure.checkpoint([*facts, replace(fact, id="f4")], last=True)
    measured = alone.with_immediate(recent)
    row, samples = measured.row, measured.samples
    assert alone.with_immediate([]) == alone and row["editing/immediate/n_edits"] == 1
    assert lm.weights.sha256() == sha and drawn_state() == before
    assert all(torch.equal(p, parameters[name]) for name, p in lm.model.named_parameters())

    for when in ("immediate", "retained"):
        for way in ("prob", "forced", "generated"):
            for group in ("efficacy", "paraphrase", "neighbourhood", "neighbourhood_paper"):
                assert 0 <= row[f"editing/{when}/{way}/{group}"] <= 1
    assert not any("fluency" in key or "portability" in key for key in row)  # these requests have neither
    assert row["drift/perplexity"] > 1 and row["drift/1/relative_norm"] > 0 and row["drift/1/spectral_norm"] > 0
    assert row["time/eval_s"] > 0 and row["memory/peak_gib"] > 0
    assert {s["request"] for s in samples if s["kind"] == "retained"} == {"f1", "f2", "f4"}
    assert {s["request"] for s in samples if s["kind"] == "immediate"} == {"f3"}


def by_request(samples, kind: str, name: str) -> dict[str, float]:
    """The mean score of each request's prompts."""
    scores: dict[str, list[float]] = {}
    for sample in samples:
        if (sample["kind"], sample["name"]) == (kind, name):
            scores.setdefault(sample["request"], []).append(sample["score"])
    return {request: sum(s) / len(s) for request, s in scores.items()}


def test_where_the_panels_leave_edits_out_they_speak_for_all_and_the_last_checkpoint_asks_all(lm, fact, monkeypatch):
    monkeypatch.setattr(panels, "PANEL_SIZE", 2)
    subjects = ("Babe Ruth", "Peru", "Ann Lee", "Nils", "Oslo", "Ed Fox", "Ghent", "Java")
    facts = [replace(fact, id=f"f{i}", subject=subject) for i, subject in enumerate(subjects)]
    seed = next(seed for seed in range(100) if len(panels.panels(facts, seed)) == 6)
    measure = Measure(lm, [], held_out_windows(lm, "A text that nobody has edited. " * 30, 120), [], seed)
    edit(lm, 1)
    asked = panels.panels(facts, seed)
    between = {f.id for f in asked} - {"f0", "f1", "f6", "f7"}
    for last in (False, True):
        row, samples = (found := measure.checkpoint(facts, last=last)).row, found.samples
        for name in ("forced/efficacy", "prob/neighbourhood", "generated/paraphrase"):
            scores = by_request(samples, "retained", name)
            ends = sum(scores[i] for i in ("f0", "f1", "f6", "f7"))
            middle = sum(scores[i] for i in between) / len(between)
            assert row[f"editing/retained_estimate/{name}"] == pytest.approx((ends + 4 * middle) / 8)
            of_all = by_request(samples, "retained_by_all", name)
            assert len(of_all) == (8 if last else 0)
            if last:
                assert row[f"editing/retained_by_all/{name}"] == pytest.approx(sum(of_all.values()) / 8)
                assert all(of_all[request] == score for request, score in scores.items())
        assert any(key.startswith("editing/retained_by_all") for key in row) == last
    row = measure.checkpoint(facts[:4], last=True).row
    assert not any("estimate" in key or "by_all" in key for key in row)


def drawn_state() -> tuple:
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


def text_after_prompt(lm, request) -> str:
    """Returns the greedy text after the request's own prompt."""
    return next(iter(respond(lm, [request]).values())).text


def test_neighbours_are_compared_with_the_unedited_model_whenever_it_is_measured(lm, make_lm, fact):
    """A request first measured after many edits gives what one measured before them gives."""
    early, late = Measure(lm, [], [], [], seed=0), Measure(lm, [], [], [], seed=0)
    early.immediate([fact])
    for seed in range(3):
        edit(lm, seed)
    unedited = text_after_prompt(make_lm("gpt2"), fact)
    first, second = early.immediate([fact]), late.immediate([fact])
    own = {"request": "f1", "group": "efficacy", "prompt": fact.question}
    assert first.texts[0] == {**own, "before": unedited, "after": text_after_prompt(lm, fact)}
    assert [text["prompt"] for text in first.texts] == [fact.question, *fact.paraphrases, *fact.neighbourhood]
    assert (first.samples, first.texts) == (second.samples, second.texts)


def test_the_unedited_model_responds_to_each_fact_alone(lm, fact, second_fact, monkeypatch):
    """Rounding depends on what is computed together, and a resumed run needs the facts in another order."""
    batches: list[list[str]] = []

    def counted(lm, requests):
        batches.append([request.id for request in requests])
        return respond(lm, requests)

    monkeypatch.setattr(measure, "respond", counted)
    straight, resumed = Measure(lm, [], [], [], seed=0), Measure(lm, [], [], [], seed=0)
    together = dict(straight._unedited_responses([fact, second_fact]))
    resumed._unedited_responses([second_fact])
    assert dict(resumed._unedited_responses([fact])) == together
    assert batches == [["f1"], ["f2"], ["f2"], ["f1"]]


def test_fluency_is_that_of_the_model_as_it_is_now_with_its_texts_kept(lm, fact):
    facts = [replace(fact, generation_prompts=("China has", "The old man")), replace(fact, id="f2"),
             replace(fact, id="f3", generation_prompts=("Fenrir",))]  # fmt: skip
    parts: list[str] = []
    measure = Measure(lm, [], held_out_windows(lm, "Some plain text. ", 4), facts, seed=0, progress=parts.append)
    first = measure.checkpoint([], last=False).row
    unedited = fluency(lm, facts)
    edit(lm, 1)
    measured = measure.checkpoint(facts, last=True)
    row, samples = measured.row, measured.samples
    written = fluency(lm, facts)
    assert written != unedited and parts.count("fluency") == 2
    for metrics, texts in ((first, unedited), (row, written)):
        assert metrics["editing/retained/fluency"] == means(texts, "x")["x/fluency"] > 0
    assert [s for s in samples if s["kind"] == "fluency"] == [{"kind": "fluency", **text} for text in written]


def test_portability_is_measured_at_0_edits_too(lm, fact):
    portable = replace(fact, portability=("The ring was where Joe DiMaggio",), portability_answers=("fought",))
    measure = Measure(lm, [], held_out_windows(lm, "Some plain text. ", 4), [portable], seed=0)
    row = measure.checkpoint([], last=False).row
    again = measure.checkpoint([portable], last=True).with_immediate(measure.immediate([portable]).samples).row
    keys = {key for key in again if key.endswith("/portability")}
    assert keys == {f"editing/{when}/{way}/portability" for when in ("immediate", "retained")
                    for way in ("forced", "generated")}  # fmt: skip
    assert {key for key in row if key.endswith("/portability")} == {key for key in keys if "retained" in key}


def test_drift_is_zero_for_the_unedited_model_and_the_frobenius_ratio_after(lm, fact):
    measure = Measure(lm, [], held_out_windows(lm, "Some plain text. " * 20, 60), [], seed=0)
    base = lm.weights.W(lm.mlp_out_name(1)).clone()
    edit(lm, 1)
    row = measure.checkpoint([fact], last=True).row
    W = lm.weights.W(lm.mlp_out_name(1))
    assert row["drift/1/relative_norm"] == pytest.approx(float((W - base).norm() / base.norm()), rel=1e-5)
    assert row["drift/1/spectral_norm"] == pytest.approx(float(torch.linalg.svdvals(W)[0]), rel=1e-4)
    lm.weights.put_back({lm.mlp_out_name(1): 1e25 * base})  # whose squares are beyond float32
    assert measure.checkpoint([fact], last=True).row["drift/1/relative_norm"] == pytest.approx(1e25, rel=1e-5)
    lm.weights.restore()
    row = measure.checkpoint([fact], last=True).row
    assert row["drift/1/relative_norm"] == 0.0


@pytest.mark.parametrize("shape", [(8, 20), (20, 8), (8, 8)])
def test_the_spectral_norm_is_the_largest_singular_value_and_nan_of_a_matrix_that_holds_one(shape):
    W_DF = torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * 1e20
    assert spectral_norm(W_DF) == pytest.approx(float(torch.linalg.svdvals(W_DF.double())[0]), rel=1e-12)
    assert spectral_norm(torch.zeros(shape)) == 0
    W_DF[3, 2] = torch.inf
    assert math.isnan(spectral_norm(W_DF))


def test_perplexity_is_that_of_plain_forward_passes(make_lm):
    lm = make_lm("llama", start_token="<|endoftext|>")
    text = "The capital of Japan is a large city with many parks and trains. " * 40
    windows = held_out_windows(lm, text, 600)
    ids = lm.tokenizer(text, add_special_tokens=False).input_ids[:600]
    assert [t for _, continuation in windows for t in continuation] == ids  # each token predicted once
    row = Measure(lm, [], windows, [], seed=0).checkpoint([], last=False).row
    total = 0.0
    for at in range(0, 600, 256):
        window = torch.tensor([[*lm.tokens.start_ids, *ids[at : at + 256]]])
        with torch.no_grad():
            log_p = lm.model(window).logits[0, :-1].log_softmax(-1)
        total -= float(log_p[range(window.shape[1] - 1), window[0, 1:]].sum())
    assert row["drift/perplexity"] == pytest.approx(np.exp(total / 600), rel=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("start_token", [None, "<s>"])
def test_perplexity_of_a_model_that_reads_less_than_a_window_is_that_of_shorter_windows(
    make_lm, family, start_token, caplog
):
    lm = make_lm(family, start_token, positions=20)
    text = "A text that nobody has edited, of which every token is predicted once. " * 10
    windows = held_out_windows(lm, text, 100)
    ids = lm.tokenizer(text, add_special_tokens=False).input_ids[:100]
    start = lm.tokens.start_ids
    parts = [[*start, *ids[i : i + 21 - len(start)]] for i in range(0, 100, 21 - len(start))]
    log_p = []
    with torch.no_grad():
        for part in parts:
            log_p_TV = lm.model(torch.tensor([part[:-1]])).logits[0].log_softmax(-1)
            log_p += log_p_TV[range(len(part) - 1), part[1:]].tolist()
    measured = Measure(lm, [], windows, [], seed=0).checkpoint([], last=False).row["drift/perplexity"]
    assert measured == pytest.approx(math.exp(-sum(log_p) / len(log_p)), rel=1e-4)
    assert f"held_out: read in windows of {21 - len(start)} tokens, not 256" in caplog.text
