"""Rows read once, and what they begin with kept: the keys and values are those of each row read alone."""

import copy

import pytest
import torch
from torch.testing import assert_close
from transformers import DynamicCache

from afteredit.edit.ingredients.value_prompts import shared_beginnings, value_rows
from afteredit.edit.update import LowRank
from afteredit.model import run_once as module
from afteredit.model.kv_cache import keys_values
from afteredit.model.lm import LM
from afteredit.model.run_once import run_once
from afteredit.model.tensors import pad

CONTEXTS = ("", "It is written on the banknotes printed", "The sport that brought him")
QUESTIONS = ("China", "The mother tongue of Ann", "The mother tongue of Joe DiMaggio and Bob", "Peru")

pytestmark = pytest.mark.usefixtures("float64_throughout")


def rows_of(lm) -> list[tuple[int, ...]]:
    fronts = [f"{context}. " if context else "" for context in CONTEXTS]
    return [lm.tokens.encode(front + question) for question in QUESTIONS for front in fronts]


@pytest.fixture
def ran(monkeypatch):
    """The token ids of every forward pass of a model."""

    def watch(lm) -> list[torch.Tensor]:
        seen, forward = [], lm.forward
        monkeypatch.setattr(lm, "forward", lambda ids_BT, *given: seen.append(ids_BT) or forward(ids_BT, *given))
        return seen

    return watch


def check(lm, rows, heads) -> None:
    cache, mask_BP = run_once(lm, rows, heads)
    for i, row in enumerate(rows):
        own = DynamicCache()
        lm.forward(*pad([row], "right"), own)
        assert mask_BP[i].tolist() == [0] * (mask_BP.shape[1] - len(row)) + [1] * len(row)
        for found, alone in zip(keys_values(cache), keys_values(own), strict=True):
            for found_B, alone_1 in zip(found, alone, strict=True):
                assert_close(found_B[i, :, -len(row) :], alone_1[0, :, -len(row) :], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("at_once", [2, 32], ids=["in several passes", "in one pass"])
@pytest.mark.parametrize("heads", [False, True], ids=["found", "known"])
def test_keys_and_values_are_those_of_each_row_alone(exact_lm, heads, at_once, monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE", at_once)
    for _ in range(2):  # read, and kept
        check(exact_lm, rows_of(exact_lm), shared_beginnings(exact_lm, CONTEXTS) if heads else ())


def test_rows_that_are_heads_themselves_are_not_run_again(exact_lm, ran):
    heads = shared_beginnings(exact_lm, CONTEXTS)
    check(exact_lm, heads, heads)
    seen = ran(exact_lm)
    run_once(exact_lm, heads, heads)
    assert not seen


def test_heads_are_run_once_while_the_model_is_unedited(exact_lm, ran):
    rows, heads = rows_of(exact_lm), shared_beginnings(exact_lm, CONTEXTS)
    seen = ran(exact_lm)
    first = run_once(exact_lm, rows, heads)
    n_first = len(seen)
    run_once(exact_lm, rows[:3], heads)
    second = run_once(exact_lm, rows, heads)
    assert [len(ids_BT) for ids_BT in seen[:1]] == [len(heads) + 1]  # and nothing
    assert seen[1].shape[1] <= max(map(len, rows)) - min(map(len, heads))  # tails alone
    assert len(seen) - n_first == n_first  # tails of three rows, and of all: a pass each
    for one, other in zip(keys_values(first[0]), keys_values(second[0]), strict=True):
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
    run_once(exact_lm, rows, heads[:1])  # other ones take their place
    assert len(seen[-2]) == 2


def test_of_an_edited_model_nothing_is_kept_nor_used(exact_lm):
    lm, rows, heads = exact_lm, rows_of(exact_lm), shared_beginnings(exact_lm, CONTEXTS)
    before, _ = run_once(lm, rows, heads)
    D, F = lm.widths(0)
    left_D, right_F = (torch.linspace(-1, 1, n, dtype=torch.float64)[:, None] for n in (D, F))
    lm.weights.add({lm.mlp_out_name(0): LowRank(left_D, right_F)})
    check(lm, rows, heads)
    assert lm not in module._kept
    lm.weights.restore()
    after, _ = run_once(lm, rows, heads)
    for one, other in zip(keys_values(before), keys_values(after), strict=True):
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


def test_in_chat_mode_a_head_begins_with_the_turn(make_lm, fact, tokenizer):
    chatty = copy.deepcopy(tokenizer)
    chatty.chat_template = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}[assistant] "
    lm = LM(make_lm("llama").model, chatty, prompt="chat")
    rows, heads = value_rows(lm, fact, CONTEXTS).ids, shared_beginnings(lm, CONTEXTS)
    opening, *under_contexts = heads
    assert all(tuple(row[: len(opening)]) == opening for row in rows)
    assert [tuple(row[: len(head)]) for row, head in zip(rows[1:], under_contexts, strict=False)] == under_contexts
    assert lm.tokenizer.decode(under_contexts[0]) == f"[user] {CONTEXTS[1]}."


@pytest.mark.parametrize("start_token", [None, "<s>"])
def test_every_row_under_a_context_begins_with_its_head(make_lm, family, fact, start_token):
    lm = make_lm(family, start_token=start_token)
    rows = value_rows(lm, fact, CONTEXTS).ids
    heads = shared_beginnings(lm, CONTEXTS)
    if start_token:
        assert heads.pop(0) == lm.tokens.encode("")
    assert len(heads) == len(CONTEXTS) - 1
    for row, head in zip(rows[1:], heads, strict=False):
        assert tuple(row[: len(head)]) == head
        assert lm.tokenizer.decode(head).endswith(".")
