"""Tests that facts which a tokenizer or method cannot handle are refused by id before the first edit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from afteredit.edit.methods.ft import Ft
from afteredit.edit.methods.kn import Kn
from afteredit.edit.methods.memit import Memit
from afteredit.edit.methods.rome import Rome
from afteredit.edit.preflight import refuse_uneditable
from afteredit.edit.request import EditRequest
from afteredit.model.lm import LM
from afteredit.store.errors import BadInput

WORDS = ["<unk>", "x", "The", "capital", "of", "Peru", "is", "Lima", "Oslo", "Bern"]
PERU = EditRequest("peru", "Peru", "The capital of {} is", "Oslo", "Lima", neighbourhood=("The capital is",),
                   neighbourhood_answers=("",))  # fmt: skip


@pytest.fixture
def words_lm(make_lm) -> LM:
    """Returns a model whose tokenizer knows ten words and drops !."""
    raw = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    raw.normalizer = normalizers.Replace("!", "")
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    return LM(make_lm("llama").model, PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>"))


def test_what_can_be_edited_passes(words_lm):
    refuse_uneditable(words_lm, Rome(layer=1), [PERU])


BAD = [
    (replace(PERU, id="bad", subject="!"), "no token"),
    (replace(PERU, id="bad", target_new="!"), "cannot be told apart from the text before it"),
    (replace(PERU, id="bad", target_new="Quito"), "no token for a letter"),
    (replace(PERU, id="bad", target_true="Oslo!"), "the same tokens"),
    (replace(PERU, id="bad", neighbourhood_answers=("!",)), "cannot be told apart"),
]


@pytest.mark.parametrize(("request_", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_a_fact_that_the_tokenizer_cannot_take_is_named(words_lm, request_, reason):
    with pytest.raises(BadInput, match=rf"^1 of 2 planned edits cannot be made: edit bad: .*{reason}.*leave out"):
        refuse_uneditable(words_lm, Rome(layer=1), [PERU, request_])


def test_a_refused_fact_is_named_with_its_file_and_line(words_lm):
    rows = [replace(PERU, id=f"p{line}", subject="!", place=f"mine.jsonl:{line}") for line in (3, 7)]
    with pytest.raises(BadInput, match=r"edit p3 \(mine.jsonl:3\), p7 \(mine.jsonl:7\): "):
        refuse_uneditable(words_lm, Rome(layer=1), [PERU, *rows])


def test_a_method_that_needs_a_true_answer_says_so_and_others_do_not_ask(words_lm):
    rows = [replace(PERU, id=f"p{i}", target_true=None) for i in range(7)]
    with pytest.raises(BadInput, match="7 of 7 .* edit p0, p1, p2, p3, p4 and 2 more: no target_true.*another method"):
        refuse_uneditable(words_lm, Kn(), rows)
    refuse_uneditable(words_lm, Rome(layer=1), rows)


def test_a_value_at_the_last_block_reaches_only_the_token_it_stands_at(words_lm):
    last = words_lm.n_blocks - 1
    ends_with_subject = replace(PERU, id="end", prompt="The capital of {}")
    for method in (Rome(layer=last), Memit(layers=[0, last])):
        with pytest.raises(BadInput, match="1 of 2 planned edits cannot be made: edit peru: written at the last block"):
            refuse_uneditable(words_lm, method, [ends_with_subject, PERU])
    refuse_uneditable(words_lm, Ft(layers=[last]), [PERU])
