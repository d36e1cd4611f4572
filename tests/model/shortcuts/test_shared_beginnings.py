"""Rows that share beginnings: the keys and values are those of each row run alone, at fewer columns."""

import pytest
import torch
from torch.testing import assert_close
from transformers import DynamicCache

from afteredit.edit.update import LowRank
from afteredit.model.hooks import hooked
from afteredit.model.kv_cache import keys_values
from afteredit.model.shortcuts import shared_beginnings as module
from afteredit.model.tensors import pad

CONTEXTS = ("It is written on the banknotes printed.", "The sport that brought him.")
QUESTIONS = ("China", "The mother tongue of Ann", "The mother tongue of Joe DiMaggio and Bob", "Peru")

pytestmark = pytest.mark.usefixtures("float64_throughout")
few_families = pytest.mark.parametrize("exact_lm", ["gpt2", "gemma2-windows"], indirect=True)


def rows_of(lm) -> list[tuple[int, ...]]:
    return [lm.tokens.encode(f"{context} {question}".strip()) for question in QUESTIONS for context in ("", *CONTEXTS)]


def beginnings_of(lm) -> list[tuple[int, ...]]:
    return list(map(lm.tokens.encode, CONTEXTS))


@pytest.fixture
def passes():
    """passes(lm) is a context that collects the token ids of every forward pass of the model."""

    def watch(lm, ids: list[torch.Tensor]):
        return hooked(before={lm.anatomy.decoder: lambda _m, _a, kwargs: ids.append(kwargs["input_ids"])})

    return watch


def check(lm, rows, beginnings) -> None:
    cache, mask_BP = lm.shared_beginnings.run(rows, beginnings)
    for i, row in enumerate(rows):
        alone = DynamicCache()
        lm.forward(*pad([row], "right"), alone)
        assert mask_BP[i].tolist() == [0] * (mask_BP.shape[1] - len(row)) + [1] * len(row)
        for block, expected in zip(keys_values(cache), keys_values(alone), strict=True):
            for values_B, expected_1 in zip(block, expected, strict=True):
                assert_close(values_B[i, :, -len(row) :], expected_1[0, :, -len(row) :], rtol=1e-9, atol=1e-9)


def assert_equal(cache, other) -> None:
    for block, expected in zip(keys_values(cache), keys_values(other), strict=True):
        assert torch.equal(block[0], expected[0]) and torch.equal(block[1], expected[1])


@pytest.mark.parametrize("known", [False, True], ids=["looked for", "known"])
def test_keys_and_values_are_those_of_each_row_alone(exact_lm, known):
    for _ in range(2):  # run, and kept
        check(exact_lm, rows_of(exact_lm), beginnings_of(exact_lm) if known else ())


@few_families
def test_they_are_in_several_passes_too(exact_lm, monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE", 2)
    for beginnings in ((), beginnings_of(exact_lm)):
        check(exact_lm, rows_of(exact_lm), beginnings)


def test_beginnings_that_two_rows_share_are_looked_for_and_run_once(make_lm, passes):
    lm, ids = make_lm("llama"), []
    rows = [lm.tokens.encode(f"{context} {name}") for context in CONTEXTS for name in ("China", "Joe DiMaggio", "Peru")]
    rows += [lm.tokens.encode(text) for text in ("It is written on the", "China", "Japan or Peru")]
    with passes(lm, ids):
        lm.shared_beginnings.run(rows)
    starts_BT, tails_BT = ids
    assert len(starts_BT) == 4  # two contexts, the beginning of one of them, and nothing
    assert starts_BT.numel() + tails_BT.numel() < 0.75 * len(rows) * max(map(len, rows))


@few_families
def test_rows_that_are_beginnings_themselves_are_not_run_again(exact_lm, passes):
    beginnings, ids = beginnings_of(exact_lm), []
    check(exact_lm, beginnings, beginnings)
    with passes(exact_lm, ids):
        exact_lm.shared_beginnings.run(beginnings, beginnings)
    assert not ids


@few_families
def test_beginnings_are_run_once_while_the_model_is_unedited(exact_lm, passes):
    lm, rows, beginnings, ids = exact_lm, rows_of(exact_lm), beginnings_of(exact_lm), []
    with passes(lm, ids):
        cache, _ = lm.shared_beginnings.run(rows, beginnings)
        n_first = len(ids)
        lm.shared_beginnings.run(rows[:3], beginnings)
        again, _ = lm.shared_beginnings.run(rows, beginnings)
        assert len(ids[0]) == len(beginnings) + 1  # and the empty one
        assert ids[1].shape[1] <= max(map(len, rows)) - min(map(len, beginnings))  # tails alone
        assert len(ids) - n_first == n_first  # tails of three rows, and of all: a pass each
        assert_equal(cache, again)
        lm.shared_beginnings.run(rows, beginnings[:1])  # other beginnings take their place
        assert len(ids[-2]) == 2


@few_families
def test_nothing_is_kept_or_reused_while_the_model_is_edited(exact_lm):
    lm, rows, beginnings = exact_lm, rows_of(exact_lm), beginnings_of(exact_lm)
    before, _ = lm.shared_beginnings.run(rows, beginnings)
    D, F = lm.widths(0)
    left_D, right_F = (torch.linspace(-1, 1, n, dtype=torch.float64)[:, None] for n in (D, F))
    lm.weights.add({lm.mlp_out_name(0): LowRank(left_D, right_F)})
    check(lm, rows, beginnings)
    assert lm.shared_beginnings.kept is None
    lm.weights.restore()
    after, _ = lm.shared_beginnings.run(rows, beginnings)
    assert_equal(before, after)
