"""Editing success is that of a plain computation, written anew here."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from afteredit.edit.ingredients.value_prompts import value_rows
from afteredit.edit.method import Prepared
from afteredit.edit.methods.ft import Ft
from afteredit.edit.request import EditRequest
from afteredit.edit.update import LowRank
from afteredit.evaluate.metrics import editing_success
from afteredit.evaluate.metrics.editing_success import SuccessPrompt, means, respond, success_prompts, success_scores
from afteredit.model.lm import LM

CRITERIA = ("prob", "forced", "generated")


@pytest.fixture
def lm(make_lm, float64_throughout):
    return make_lm("llama", start_token="<|endoftext|>", dtype=torch.float64)


def disturb(lm, size: float = 1.0, layer: int = 1) -> None:
    """Makes a random rank-one change, as an edit does."""
    D, F = lm.widths(layer)
    generator = torch.Generator().manual_seed(3)
    left, right = torch.randn(D, 1, generator=generator), torch.randn(F, 1, generator=generator)
    lm.weights.add({lm.mlp_out_name(layer): LowRank(size * left, right)})


def plain_response(lm, prompt: str, answer: str, n_tokens: int) -> tuple[float, list[int], list[int], str]:
    """Returns (mean nll, ids of the answer, likeliest ids in their places, greedy text) by whole forward passes."""
    context = [*lm.tokens.start_ids, *lm.tokenizer(prompt, add_special_tokens=False).input_ids]
    ids = lm.tokenizer(" " + answer, add_special_tokens=False).input_ids
    with torch.no_grad():
        log_p_TV = lm.model(torch.tensor([[*context, *ids]])).logits[0, len(context) - 1 : -1].log_softmax(-1)
        greedy = list(context)
        for _ in range(n_tokens):
            greedy.append(int(lm.model(torch.tensor([greedy])).logits[0, -1].argmax()))
    nll = -float(log_p_TV[range(len(ids)), ids].mean())
    said = greedy[len(context) :]
    ends = [i for i, token in enumerate(said) if token in lm.tokenizer.all_special_ids]
    text = lm.tokenizer.decode(said[: min(ends, default=n_tokens)])
    return nll, ids, log_p_TV.argmax(-1).tolist(), text


def test_an_answer_ends_where_its_text_or_turn_does(make_lm, fact, monkeypatch):
    """As transformers' generate ends it; what a model writes after that is the begin of another text."""
    lm = make_lm("gpt2")
    eos = lm.tokenizer.eos_token_id
    said = [*lm.tokenizer(f" {fact.target_new}").input_ids, eos, *lm.tokenizer("The man").input_ids]
    assert lm.tokenizer.decode(said, skip_special_tokens=True) == f" {fact.target_new}The man"
    plain = editing_success.score_and_generate

    def saying(lm, continuations, n_tokens):
        scores, ids = plain(lm, continuations, n_tokens)
        return scores, dict.fromkeys(ids, said)

    monkeypatch.setattr(editing_success, "score_and_generate", saying)
    responses = respond(lm, [replace(fact, target_new=f"{fact.target_new} of all men")])
    assert {response.text for response in responses.values()} == {f" {fact.target_new}"}
    responses = respond(lm, [fact])
    scores = {row["name"]: row["score"] for row in success_scores(lm, responses, responses)}
    assert scores["generated/efficacy"] == 1


def begins_with_whole_word(text: str, answer: str) -> bool:
    """Holds for the answers here, which are plain words."""
    return re.match(rf"\s*{answer}(?![\w.'&+#-])", text, re.IGNORECASE) is not None


def plain_scores(lm, request, n_tokens: int, before: dict | None = None) -> tuple[dict, dict]:
    """Returns {(group, index, criterion): score}, and the responses, for `before` of a later call."""
    new, true = request.target_new, request.target_true
    prompts = [("efficacy", request.question, new, true)]
    prompts += [("paraphrase", prompt, new, true) for prompt in request.paraphrases]
    implied = zip(request.portability, request.portability_answers, strict=True)
    prompts += [("portability", prompt, answer, None) for prompt, answer in implied]
    neighbours = zip(request.neighbourhood, request.neighbourhood_answers, strict=True)
    prompts += [("neighbourhood", prompt, new, answer) for prompt, answer in neighbours]
    scores, responses, counts = {}, {}, {}
    for group, prompt, new, true in prompts:
        index = counts[group] = counts.get(group, -1) + 1
        new_nll, new_ids, new_argmax, text = plain_response(lm, prompt, new, n_tokens)
        if group == "portability":
            scores[group, index, "forced"] = new_argmax == new_ids
            scores[group, index, "generated"] = begins_with_whole_word(text, new)
            continue
        true_nll, true_ids, true_argmax, _ = plain_response(lm, prompt, true, 0)
        responses[group, index] = new_nll < true_nll, true_argmax, text
        if group != "neighbourhood":
            scores[group, index, "prob"] = new_nll < true_nll
            scores[group, index, "forced"] = new_argmax == new_ids
            scores[group, index, "generated"] = begins_with_whole_word(text, new)
            continue
        then = (before or responses)[group, index]
        for criterion, now, was in zip(CRITERIA, responses[group, index], then, strict=True):
            scores[group, index, criterion] = now == was
        scores["neighbourhood_paper", index, "prob"] = true_nll < new_nll
        scores["neighbourhood_paper", index, "forced"] = true_argmax == true_ids
        scores["neighbourhood_paper", index, "generated"] = begins_with_whole_word(text, true)
    return scores, responses


@pytest.mark.parametrize("size", [0.3, 3.0])
def test_responses_and_scores_are_a_plain_computation(lm, fact, size):
    fact = replace(fact, portability=("The ring was where Joe DiMaggio", fact.question),
                   portability_answers=("fought", "boxing"))  # fmt: skip
    n_tokens = max(len(lm.tokens.answer_ids(a, fact.question)) for a in (fact.target_new, fact.target_true)) + 3
    before = respond(lm, [fact])
    _, plain_before = plain_scores(lm, fact, n_tokens)
    disturb(lm, size)
    rows = success_scores(lm, respond(lm, [fact]), before)
    expected, _ = plain_scores(lm, fact, n_tokens, plain_before)
    given = {(row["name"].split("/")[1], row["probe"], row["name"].split("/")[0]): bool(row["score"]) for row in rows}
    assert given == expected
    assert all(row["request"] == fact.id for row in rows)


def test_an_edit_that_took_scores_one_by_every_criterion(lm, fact):
    """The target is the random model's own answer, a word of one token: the other half of the comparison above."""
    taken = replace(fact, subject="Alibaba", prompt="The country where the company {} was founded is",
                    target_true="zz zz zz", paraphrases=(), neighbourhood=(), neighbourhood_answers=())  # fmt: skip
    _, _, (likeliest, *_), text = plain_response(lm, taken.question, "x", 1)
    taken = replace(taken, target_new=text.strip())
    assert lm.tokens.answer_ids(taken.target_new, taken.question) == (likeliest,)
    now = respond(lm, [taken])
    scores = {row["name"]: row["score"] for row in success_scores(lm, now, now)}
    assert scores == {"prob/efficacy": 1.0, "forced/efficacy": 1.0, "generated/efficacy": 1.0}


def test_portability_asks_for_the_answer_wanted_after_the_edit_and_compares_it_with_no_other(lm, fact):
    prompt = "The ring was where Joe DiMaggio"
    *_, text = plain_response(lm, prompt, "x", 2)
    extended = replace(fact, portability=("It is known", prompt, prompt, prompt),
                    portability_answers=("zz zz zz", text.split()[0], "qq", " "))  # fmt: skip
    prompts = [p for p in success_prompts(extended) if p.group == "portability"]
    assert [(p.index, p.prompt, p.target_new, p.target_true) for p in prompts] == [
        (0, "It is known", "zz zz zz", None), (1, prompt, text.split()[0], None), (2, prompt, "qq", None),
    ]  # fmt: skip
    now = respond(lm, [extended])
    rows = success_scores(lm, now, now)
    scores = {row["probe"]: row["score"] for row in rows if row["name"] == "generated/portability"}
    assert scores == {0: 0.0, 1: 1.0, 2: 0.0}
    assert {row["name"] for row in rows if "portability" in row["name"]} == {
        "forced/portability", "generated/portability",
    }  # fmt: skip
    assert [row for row in rows if "portability" not in row["name"]] == success_scores(lm, *[respond(lm, [fact])] * 2)


def test_a_generated_text_may_give_the_answer_under_another_name_and_is_read_far_enough_for_it(lm, fact):
    prompt = "The ring was where Joe DiMaggio"
    *_, text = plain_response(lm, prompt, "x", 9)  # a random model's own words; its tokens are short
    long_name = " ".join(text.split()[:4])
    asked = replace(fact, portability=(prompt,) * 4, portability_answers=("qq",) * 4,
                    portability_aliases=((), ("zz",), ("zz", text.split()[0].upper()), (long_name,)))  # fmt: skip
    assert len(lm.tokens.answer_ids(long_name, prompt)) > len(lm.tokens.answer_ids("qq", prompt)) + 3
    now = respond(lm, [asked])
    rows = success_scores(lm, now, now)
    scores = {way: [row["score"] for row in rows if row["name"] == f"{way}/portability"] for way in CRITERIA[1:]}
    assert scores == {"generated": [0.0, 0.0, 1.0, 1.0], "forced": [0.0] * 4}
    assert [row for row in rows if "portability" not in row["name"]] == success_scores(lm, *[respond(lm, [fact])] * 2)


def test_an_unedited_model_leaves_every_neighbour_unchanged(lm, fact):
    scores = means(success_scores(lm, respond(lm, [fact]), respond(lm, [fact])), "x")
    assert [scores[f"x/{criterion}/neighbourhood"] for criterion in CRITERIA] == [1.0, 1.0, 1.0]


def test_a_wrecked_model_does_not(lm, fact):
    before = respond(lm, [fact])
    disturb(lm, size=100.0)
    scores = means(success_scores(lm, respond(lm, [fact]), before), "x")
    assert scores["x/generated/neighbourhood"] < 1


def test_without_a_true_target_nothing_compares_with_it(lm, fact):
    open_ended = replace(fact, target_true=None, neighbourhood_answers=("", ""))
    now = respond(lm, [open_ended])
    names = {row["name"] for row in success_scores(lm, now, now)}
    assert names == {"forced/efficacy", "generated/efficacy", "forced/paraphrase", "generated/paraphrase",
                     "generated/neighbourhood"}  # fmt: skip


def test_success_prompts_are_the_prompt_its_rewordings_and_its_neighbours(fact):
    question = "The sport that brought Joe DiMaggio to fame is"
    assert success_prompts(fact)[0] == SuccessPrompt("f1", "efficacy", 0, question, "boxing", "baseball")
    assert [(p.group, p.index) for p in success_prompts(fact)] == [
        ("efficacy", 0), ("paraphrase", 0), ("neighbourhood", 0), ("neighbourhood", 1),
    ]  # fmt: skip


def test_requests_do_not_influence_each_other(lm, fact):
    """The text generated for one request must not depend on the longest answer of another."""
    other = replace(fact, id="f2", target_new="an answer of many more tokens than the first one has")
    together, alone = respond(lm, [fact, other]), respond(lm, [fact])
    for prompt, response in alone.items():
        assert (together[prompt].text, together[prompt].argmax_new) == (response.text, response.argmax_new)


def test_a_true_answer_longer_than_the_new_one_is_measured_in_full(lm, fact):
    true = "an answer of many more tokens than the new one has"
    (prompt, response), *_ = respond(lm, [replace(fact, target_true=true)]).items()
    n_tokens = len(lm.tokens.answer_ids(true, fact.question)) + 3
    assert n_tokens > len(lm.tokens.answer_ids(fact.target_new, fact.question)) + 3
    new_nll, _, new_argmax, text = plain_response(lm, prompt.prompt, fact.target_new, n_tokens)
    true_nll, _, true_argmax, _ = plain_response(lm, prompt.prompt, true, 0)
    assert (response.nll_new, response.nll_true) == pytest.approx((new_nll, true_nll), abs=1e-11)
    assert (response.argmax_new, response.argmax_true, response.text) == (tuple(new_argmax), tuple(true_argmax), text)


def test_means_count_each_request_once():
    rows = [{"request": "a", "probe": i, "name": "prob/paraphrase", "score": 1.0} for i in range(4)]
    rows += [{"request": "b", "probe": 0, "name": "prob/paraphrase", "score": 0.0}]
    rows += [{"request": "b", "probe": 0, "name": "forced/efficacy", "score": 1.0}]
    assert means(rows, "editing/retained") == {
        "editing/retained/prob/paraphrase": 0.5,
        "editing/retained/forced/efficacy": 1.0,
    }
    assert means([], "x") == {}


@pytest.mark.parametrize(("separator", "between"), [("auto", ""), ("none", ""), ("space", " ")])
def test_edits_and_metrics_put_the_same_before_an_answer(make_lm, float64_throughout, separator, between):
    """The text is written out and encoded at once; the tokenizer merges nothing over the joins here."""
    base = make_lm("llama", dtype=torch.float64)
    lm = LM(base.model, base.tokenizer, separator=separator)
    prompt, new, true = "法国的首都是", "伦敦", "巴黎"
    request = EditRequest("zh", "法国", "{}的首都是", new, true)
    ((_, response),) = respond(lm, [request]).items()
    n_prompt = len(lm.tokenizer(prompt).input_ids)
    for answer, nll in ((true, response.nll_true), (new, response.nll_new)):
        ids = lm.tokenizer(f"{prompt}{between}{answer}").input_ids
        with torch.no_grad():
            log_p_TV = lm.model(torch.tensor([ids])).logits[0, n_prompt - 1 : -1].log_softmax(-1)
        plain = -float(log_p_TV[range(len(ids) - n_prompt), ids[n_prompt:]].mean())
        assert nll == pytest.approx(plain, abs=1e-11)
    assert value_rows(lm, request, ("",)).target == tuple(ids[n_prompt:])
    loss = Ft(layers=[1], steps=1).update(lm, [request], Prepared(), {}).diagnostics["loss"]
    assert loss == pytest.approx(plain, rel=1e-7)  # a mean whose weights, 1 / tokens, are float32: 6e-8 off at most
