"""Tests that rows continued together get the tokens that each gets alone."""

import pytest
import torch
from torch.testing import assert_close

from afteredit.model.decoding import continue_rows, greedy, sampler

TEXTS = ("The sport that brought Joe DiMaggio to fame is", "China", "Fenrir is a famous character in", "The works of")


@pytest.fixture(params=[None, "<s>"])
def lm(request, make_lm, family):
    return make_lm(family, start_token=request.param)


def rows_of(lm) -> list[list[int]]:
    return [list(lm.tokens.encode(text)) for text in TEXTS]


def test_greedy_is_what_the_model_itself_generates_row_by_row(lm):
    lm.model.generation_config.eos_token_id = None
    for row, ours in zip(rows_of(lm), continue_rows(lm, rows_of(lm), 12, greedy), strict=True):
        ids = torch.tensor([row])
        expected = lm.model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12)
        assert ours == expected[0, len(row) :].tolist()


def test_each_row_stops_when_it_is_done(lm):
    whole = continue_rows(lm, rows_of(lm), 9, greedy)
    lengths = {0: 3, 1: 1, 2: 6}
    stopped = continue_rows(lm, rows_of(lm), 9, greedy, lambda row, ids: len(ids) == lengths.get(row))
    assert stopped == [whole[0][:3], whole[1][:1], whole[2][:6], whole[3]]


@torch.no_grad()
def test_in_every_family_rows_are_continued_as_each_is_alone_and_stop_when_they_are_done(exact_lm):
    """This includes a window shorter than the rows."""
    lm, lengths = exact_lm, {0: 3, 1: 1, 2: 6}
    stopped = continue_rows(lm, rows_of(lm), 9, greedy, lambda row, ids: len(ids) == lengths.get(row))
    for i, (row, ours) in enumerate(zip(rows_of(lm), stopped, strict=True)):
        ids = list(row)
        for _ in range(lengths.get(i, 9)):
            ids.append(int(lm.model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        assert ours == ids[len(row) :]


def test_done_is_called_with_the_row_and_all_its_ids_so_far(lm):
    calls = []
    whole = continue_rows(lm, rows_of(lm)[:2], 3, greedy, lambda row, ids: calls.append((row, tuple(ids))))
    assert calls == [(row, tuple(whole[row][:n])) for n in (1, 2, 3) for row in (0, 1)]


def test_no_pass_is_spent_after_the_last_token_needed(lm, monkeypatch):
    calls, forward = [], lm.forward
    monkeypatch.setattr(lm, "forward", lambda *args: calls.append(args[0].shape) or forward(*args))
    continue_rows(lm, rows_of(lm), 5, greedy)
    assert len(calls) == 5
    calls.clear()
    continue_rows(lm, rows_of(lm), 5, greedy, lambda row, ids: len(ids) == (1 if row else 2))
    assert [tuple(shape) for shape in calls[1:]] == [(1, 1)]


def test_the_same_seed_draws_the_same_tokens(lm):
    drawn = [continue_rows(lm, rows_of(lm), 8, sampler(torch.Generator().manual_seed(s), top_k=5)) for s in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("top_k", [None, 3])
def test_tokens_are_drawn_as_often_as_the_model_says(top_k):
    logits_V = torch.tensor([1.0, -2.0, 0.5, 2.0, -torch.inf, 0.0])
    expected_V = logits_V.softmax(-1)
    if top_k:
        expected_V = torch.where(logits_V >= 0.5, expected_V, 0)
        expected_V = expected_V / expected_V.sum()
    drawn = sampler(torch.Generator().manual_seed(0), top_k)(logits_V.expand(20000, -1))
    shares_V = torch.bincount(drawn, minlength=6) / 20000
    assert_close(shares_V, expected_V, rtol=0, atol=0.015)
    assert not shares_V[expected_V == 0].any()


@torch.no_grad()
def test_a_row_ends_where_it_fills_what_the_model_can_read(make_lm, family):
    """The last token of such a row is written, but no position is left to read it at."""
    lm = make_lm(family, positions=16)
    rows = [row[:16] for row in rows_of(lm)]
    assert len(set(map(len, rows))) > 2
    for row, ours in zip(rows, continue_rows(lm, rows, 20, greedy), strict=True):
        ids = list(row)
        while len(ids) <= 16:
            ids.append(int(lm.model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        assert ours == ids[len(row) :]
