"""The entropy is that worked out by hand and by scipy; the texts depend on nothing but model and prompt."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from afteredit.evaluate.metrics import fluency as module
from afteredit.evaluate.metrics.editing_success import means
from afteredit.evaluate.metrics.fluency import fluency, n_gram_entropy, write_texts
from afteredit.model.decoding import continue_rows, greedy

PROMPTS = ["Joe DiMaggio is known for", "The weather in China", "Fenrir", "It is said that the old man"]


@pytest.fixture
def lm(make_lm, monkeypatch):
    monkeypatch.setattr(module, "N_TOKENS", 12)
    return make_lm("gpt2")


def by_scipy(bigrams: list[int], trigrams: list[int]) -> float:
    """Returns the mean of 2/3 of the bigrams' and 4/3 of the trigrams' entropy, as the reference code does."""
    return float(np.mean([2 / 3 * entropy(bigrams, base=2), 4 / 3 * entropy(trigrams, base=2)]))


@pytest.mark.parametrize(("text", "bigrams", "trigrams"), [
    ("a b c d", [1, 1, 1], [1, 1]),
    ("the cat sat on\nthe  cat sat on", [2, 2, 2, 1], [2, 2, 1, 1]),
    ("no, no, no", [2, 2], [2, 1]),  # punctuation marks are words
    ("No no no", [1, 1], [1]),  # case counts
])  # fmt: skip
def test_the_entropy_is_that_of_counted_bigrams_and_trigrams_in_bits(text, bigrams, trigrams):
    assert n_gram_entropy(text) == pytest.approx(by_scipy(bigrams, trigrams))


def test_four_different_words_have_their_entropy_worked_out_by_hand():
    assert n_gram_entropy("a b c d") == pytest.approx((1.584962500721156 + 2 * 1) / 3)


@pytest.mark.parametrize("text", ["", " ", "word", "the the the the the the"])
def test_one_word_again_and_again_or_hardly_a_word_has_no_entropy(text):
    assert n_gram_entropy(text) == 0.0


def test_a_text_depends_on_its_prompt_alone_not_on_the_batch_or_its_order(lm):
    together = dict(zip(PROMPTS, write_texts(lm, PROMPTS), strict=True))
    assert len(set(together.values())) == len(PROMPTS)
    assert write_texts(lm, PROMPTS[::-1]) == [together[prompt] for prompt in PROMPTS[::-1]]
    for prompt in PROMPTS:
        assert write_texts(lm, [prompt]) == [together[prompt]]


def test_tokens_are_drawn_from_the_likeliest(lm, monkeypatch):
    rows = [list(lm.tokens.encode(prompt)) for prompt in PROMPTS]
    likeliest = [lm.tokenizer.decode(ids, skip_special_tokens=True) for ids in continue_rows(lm, rows, 12, greedy)]
    assert write_texts(lm, PROMPTS) != likeliest
    monkeypatch.setattr(module, "TOP_K", 1)
    assert write_texts(lm, PROMPTS) == likeliest


def test_writing_leaves_every_generator_as_it_was(lm, fact):
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    fluency(lm, [replace(fact, generation_prompts=tuple(PROMPTS))])
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


def test_the_first_three_different_prompts_of_a_request_are_continued(lm, fact):
    repeated = replace(fact, generation_prompts=(PROMPTS[0], PROMPTS[0], PROMPTS[2], PROMPTS[0], *PROMPTS))
    rows = fluency(lm, [replace(fact, id="none"), repeated])
    texts = write_texts(lm, [PROMPTS[0], PROMPTS[2], PROMPTS[1]])
    assert rows == [
        {"request": "f1", "probe": i, "name": "fluency", "score": n_gram_entropy(text), "text": text}
        for i, text in enumerate(texts)
    ]
    assert not any(PROMPTS[0] in text for text in texts)  # the continuation alone
    mean = sum(row["score"] for row in rows) / 3
    assert means(rows, "editing/retained") == {"editing/retained/fluency": pytest.approx(mean)}


def test_only_the_first_requests_that_have_prompts_are_asked(lm, fact, monkeypatch):
    monkeypatch.setattr(module, "N_TOKENS", 2)
    able = [replace(fact, id=f"g{i}", generation_prompts=(PROMPTS[i % 4],)) for i in range(12)]
    mixed = [request for i, able_one in enumerate(able) for request in (replace(fact, id=f"n{i}"), able_one)]
    assert [row["request"] for row in fluency(lm, mixed)] == [f"g{i}" for i in range(10)]


def test_requests_without_prompts_have_no_fluency(lm, fact):
    assert fluency(lm, [fact]) == fluency(lm, []) == []


def test_a_text_has_as_many_tokens_as_are_asked_for(lm, fact):
    """The number is fixed, so that a model that ends early is not taken for one that repeats itself."""
    passes, forward = [], lm.forward
    lm.forward = lambda *args: passes.append(args) or forward(*args)
    fluency(lm, [replace(fact, generation_prompts=("China",))])
    assert len(passes) == 12  # one over the prompt, one for every token but the last


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_texts_are_shorter_where_the_model_reads_no_more_and_the_log_says_so(make_lm, monkeypatch, caplog, family):
    monkeypatch.setattr(module, "N_TOKENS", 12)
    lm = make_lm(family, positions=20)
    caplog.set_level("INFO")
    lengths = [len(lm.tokens.encode(prompt)) for prompt in PROMPTS]
    texts = write_texts(lm, PROMPTS)
    n_short = sum(21 - length < 12 for length in lengths)
    assert 0 < n_short < len(PROMPTS)
    assert f"fluency: {n_short} of 4 texts end before their 12 tokens: the model reads 20 tokens in all" in caplog.text
    assert texts == [write_texts(lm, [prompt])[0] for prompt in PROMPTS]
    if family == "llama":  # whose weights do not depend on its length
        whole = write_texts(make_lm(family), PROMPTS)
        assert all(long.startswith(short.rstrip("\ufffd")) for short, long in zip(texts, whole, strict=True))
        assert sum(short != long for short, long in zip(texts, whole, strict=True)) == n_short


def test_rows_of_different_lengths_are_written_where_no_padding_may_stand_between_them(make_lm, monkeypatch):
    monkeypatch.setattr(module, "N_TOKENS", 12)
    lm = make_lm("llama")
    texts = write_texts(lm, PROMPTS)
    monkeypatch.setattr(lm.capabilities, "may_pad", lambda _columns: False)
    assert write_texts(lm, PROMPTS) == texts
