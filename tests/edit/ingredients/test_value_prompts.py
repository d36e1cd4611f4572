"""The rows of one fact's value begin with what `shared_beginnings` names."""

import copy

import pytest

from afteredit.edit.ingredients.value_prompts import shared_beginnings, value_rows
from afteredit.model.lm import LM

CONTEXTS = ("", "It is written on the banknotes printed", "The sport that brought him")


def test_in_chat_mode_a_beginning_opens_with_the_turn(make_lm, fact, tokenizer):
    chatty = copy.deepcopy(tokenizer)
    chatty.chat_template = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}[assistant] "
    lm = LM(make_lm("llama").model, chatty, prompt="chat")
    rows = value_rows(lm, fact, CONTEXTS).ids
    opening, *under_contexts = shared_beginnings(lm, CONTEXTS)
    assert all(tuple(row[: len(opening)]) == opening for row in rows)
    starts = [tuple(row[: len(start)]) for row, start in zip(rows[1:], under_contexts, strict=False)]
    assert starts == under_contexts
    assert lm.tokenizer.decode(under_contexts[0]) == f"[user] {CONTEXTS[1]}."


@pytest.mark.parametrize("start_token", [None, "<s>"])
def test_every_row_under_a_context_begins_with_its_beginning(make_lm, family, fact, start_token):
    lm = make_lm(family, start_token=start_token)
    rows, beginnings = value_rows(lm, fact, CONTEXTS).ids, shared_beginnings(lm, CONTEXTS)
    if start_token:
        assert beginnings.pop(0) == lm.tokens.encode("")
    assert len(beginnings) == len(CONTEXTS) - 1
    for row, start in zip(rows[1:], beginnings, strict=False):
        assert tuple(row[: len(start)]) == start
        assert lm.tokenizer.decode(start).endswith(".")
