"""Tests that context prefixes are the bare prompt, then as many short texts as set, which the seed alone decides."""

import pytest
import torch

from afteredit.edit.ingredients.context_prefixes import OPENINGS, sample_contexts

COUNTS = {5: 7, 10: 4}


@pytest.fixture(params=[None, "<s>"])
def lm(request, make_lm, family):
    return make_lm(family, start_token=request.param)


def test_the_bare_prompt_comes_first_and_the_counts_are_kept(lm):
    contexts = sample_contexts(lm, COUNTS, seed=0)
    assert contexts[0] == ""
    assert len(contexts) == 1 + 7 + 4
    assert all(contexts[1:])
    assert sample_contexts(lm, {5: 0}, seed=0) == ("",)


def test_each_text_goes_on_from_an_opening(lm):
    _, *contexts = sample_contexts(lm, COUNTS, seed=0)
    assert [text.startswith(OPENINGS[i % 5]) for i, text in enumerate(contexts[:7])] == [True] * 7
    assert [text.startswith(OPENINGS[i % 5]) for i, text in enumerate(contexts[7:])] == [True] * 4
    assert max(len(lm.tokens.encode(text)) for text in contexts) > 8


def test_no_braces_and_no_line_breaks(lm, monkeypatch):
    """This holds even for a model that would write nothing else."""
    awkward = lm.tokenizer("{ }\n\r {}.", add_special_tokens=False).input_ids
    monkeypatch.setattr(
        "afteredit.edit.ingredients.context_prefixes.continue_rows", lambda _lm, rows, *_: [awkward] * len(rows)
    )
    for text in sample_contexts(lm, COUNTS, seed=0):
        assert not set(text) & set("{}\n\r")
        assert not text.endswith((".", " "))
        assert "  " not in text


def test_the_seed_decides_the_texts_whatever_torchs_own(lm):
    torch.manual_seed(5)
    first = sample_contexts(lm, COUNTS, seed=1)
    torch.manual_seed(6)
    assert sample_contexts(lm, COUNTS, seed=1) == first
    assert sample_contexts(lm, COUNTS, seed=2) != first
