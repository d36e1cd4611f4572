"""Every shortcut of measuring, on every architecture, edited or not, gives what plain forward passes give; and keeping
what lies below the edited block changes no bit."""

from __future__ import annotations

import logging
import random

import pytest
import torch
from torch.testing import assert_close
from transformers import DynamicCache

from afteredit.edit.update import LowRank
from afteredit.evaluate.inference import batches as packing
from afteredit.evaluate.inference.generation import score_and_generate
from afteredit.evaluate.inference.kept_blocks import BaseBlocks, can_start_at, lowest_edited
from afteredit.evaluate.inference.likelihood import may_pad, score
from afteredit.model.tensors import first, pad

GIB = 0.1
IN_FLOAT32 = ("gptj", "gemma2")  # their attention's weights, whatever the model's own dtype


def edit(lm, layer: int, seed: int = 0) -> None:
    D, F = lm.widths(layer)
    generator = torch.Generator().manual_seed(seed)
    left, right = torch.randn(D, 1, generator=generator), torch.randn(F, 1, generator=generator)
    lm.weights.add({lm.mlp_out_name(layer): LowRank(0.3 * left.double(), right.double())})


def asked(vocab: int) -> dict[tuple[int, ...], list[tuple[int, ...]]]:
    """Contexts behind one prefix of 20 tokens, two behind another, two alone; continuations of up to 6 tokens."""
    rng = random.Random(0)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(rng.randrange(2, vocab) for _ in range(n))

    prefix, other = ids(20), ids(17)
    contexts = [(*prefix, *ids(n)) for n in (3, 7, 3, 12, 1)] + [(*other, *ids(n)) for n in (2, 5)] + [ids(4), ids(9)]
    kinds = [[ids(1), ids(6)], [ids(3), ids(4), ids(1)], [], [ids(2)]]
    return {context: kinds[i % len(kinds)] for i, context in enumerate(contexts)}


def exactness(lm) -> float:
    return 1e-5 if lm.model.config.model_type in IN_FLOAT32 else 1e-10


def pairs_of(wanted) -> list[tuple]:
    return [(context, continuation) for context, own in wanted.items() for continuation in own]


@torch.no_grad()
def plain_log_p(lm, context, continuation) -> list[float]:
    """The model's own forward on one row: no cache, no padding, nothing shared."""
    logits_TV = lm.model(torch.tensor([[*context, *continuation]]), use_cache=False).logits[0, len(context) - 1 : -1]
    return logits_TV.log_softmax(-1)[range(len(continuation)), list(continuation)].tolist()


@torch.no_grad()
def plain_answer(lm, context, n_tokens: int) -> list[int]:
    ids = list(context)
    for _ in range(n_tokens):
        ids.append(int(lm.model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids[len(context) :]


def tokens_run(lm, block: int, work) -> int:
    seen = [0]

    def count(_module, _args, output) -> None:
        seen[0] += output[..., 0].numel()

    hook = lm.mlp_out(block).register_forward_hook(count)
    work()
    hook.remove()
    return seen[0]


@pytest.mark.parametrize("budget", [1, 60, 1024])
def test_scores_are_those_of_plain_passes_cold_and_kept_before_and_after_edits(exact_lm, budget, monkeypatch):
    monkeypatch.setattr(packing, "TOKEN_BUDGET", budget)
    lm, base = exact_lm, BaseBlocks(exact_lm, GIB)
    lm.weights.keep_base(map(lm.mlp_out_name, [2, 3]))
    pairs = pairs_of(asked(len(lm.tokenizer)))
    for checkpoint in range(3):
        scores = score(lm, pairs, base)
        for pair, scored in zip(pairs, scores, strict=True):
            assert_close(list(scored.log_p), plain_log_p(lm, *pair), atol=exactness(lm), rtol=0)
        assert scores == score(lm, pairs)  # to the bit
        assert base.n_bytes > 0
        edit(lm, 2 + checkpoint % 2, checkpoint)
    assert tokens_run(lm, 1, lambda: score(lm, pairs, base)) == 0 < tokens_run(lm, 2, lambda: score(lm, pairs, base))


@pytest.mark.parametrize("budget", [1, 1024])
def test_answers_are_those_of_plain_passes_cold_and_kept_before_and_after_edits(exact_lm, budget, monkeypatch):
    monkeypatch.setattr(packing, "TOKEN_BUDGET", budget)
    lm, base, n_tokens = exact_lm, BaseBlocks(exact_lm, GIB), 5
    lm.weights.keep_base([lm.mlp_out_name(2)])
    wanted = asked(len(lm.tokenizer))
    before = None
    for checkpoint in range(2):
        scores, answers = score_and_generate(lm, wanted, n_tokens, None, base)
        assert answers == {context: plain_answer(lm, context, n_tokens) for context in wanted} != before
        assert (scores, answers) == score_and_generate(lm, wanted, n_tokens)  # to the bit
        before = answers
        edit(lm, 2, checkpoint)
    prompt_tokens = sum(map(len, wanted))
    assert tokens_run(lm, 1, lambda: score_and_generate(lm, wanted, n_tokens, None, base)) <= len(wanted) * (
        n_tokens - 1
    )
    assert tokens_run(lm, 2, lambda: score_and_generate(lm, wanted, n_tokens, None, base)) > prompt_tokens / 2


def test_where_no_padding_may_stand_the_log_says_so_once(exact_lm, caplog):
    wanted = {(1, 2, 3, 4, 5): [(6, 7)]}  # 12 columns, and the narrow window is 9
    with caplog.at_level(logging.INFO, logger="afteredit.model"):
        answers = [may_pad(exact_lm, wanted, 0) for _ in range(2)]
    narrow = exact_lm.model.config.to_dict().get("sliding_window") == 9
    assert answers == [not narrow] * 2
    assert ["only rows of one length" in record.message for record in caplog.records] == [True] * narrow


@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_padding_on_either_side_leaves_the_pass_from_a_block_up_what_it_was(exact_lm, side):
    lm = exact_lm
    if lm.model.config.model_type in IN_FLOAT32:  # float64's least number is no number there
        lm.model.float()
    rows = [list(range(5, 5 + n)) for n in (3, 6, 4)]
    ids_BT, mask_BT = pad(rows, side)
    seen = []
    hook = lm.anatomy.blocks[1].register_forward_hook(lambda _m, _i, output: seen.append(first(output)))
    whole_BTD = lm.forward(ids_BT, mask_BT)
    hook.remove()
    above_BTD = lm.forward_from(2, seen[0], ids_BT, mask_BT, DynamicCache(), 0)
    assert torch.equal(above_BTD[mask_BT.bool()], whole_BTD[mask_BT.bool()])
    for row, hidden_TD in zip(rows, [h[m.bool()] for h, m in zip(above_BTD, mask_BT, strict=True)], strict=True):
        alone_1TD = lm.model(torch.tensor([row]), use_cache=False).logits
        assert_close(lm.logits(hidden_TD), alone_1TD[0], atol=exactness(lm), rtol=0)
    assert all("forward" not in block.__dict__ for block in lm.anatomy.blocks)


@pytest.fixture
def lm(make_lm):
    return make_lm("llama")


@pytest.fixture
def pairs(lm) -> list[tuple]:
    return pairs_of(asked(len(lm.tokenizer)))


def test_nothing_is_kept_before_the_edited_blocks_are_known(lm, pairs):
    base = BaseBlocks(lm, GIB)
    score(lm, pairs, base)
    assert base.n_bytes == 0
    lm.weights.keep_base([lm.mlp_out_name(0)])  # below it there is nothing
    score(lm, pairs, base)
    assert base.n_bytes == 0


def test_an_edit_of_a_lower_block_starts_anew(lm, pairs):
    base = BaseBlocks(lm, GIB)
    lm.weights.keep_base([lm.mlp_out_name(3)])
    score(lm, pairs, base)
    above = base.n_bytes
    edit(lm, 1)
    assert score(lm, pairs, base) == score(lm, pairs)
    assert 0 < base.n_bytes < above and tokens_run(lm, 1, lambda: score(lm, pairs, base)) > 0
    assert score(lm, pairs, base) == score(lm, pairs) and tokens_run(lm, 0, lambda: score(lm, pairs, base)) == 0


def test_what_a_view_shows_is_measured(lm, pairs):
    base = BaseBlocks(lm, GIB)
    edit(lm, 2)
    raw = score(lm, pairs, base)
    with lm.weights.seen_through(lambda W_base_DF, W_DF: (W_base_DF + W_DF) / 2):
        seen = score(lm, pairs, base)
        assert seen == score(lm, pairs) != raw
    lm.weights.restore()
    assert score(lm, pairs, base) == score(lm, pairs) != seen


def test_beyond_the_memory_allowed_all_blocks_run_and_the_log_says_so_once(lm, pairs, caplog):
    lm.weights.keep_base([lm.mlp_out_name(2)])
    roomy = BaseBlocks(lm, GIB)
    score(lm, pairs, roomy)
    base = BaseBlocks(lm, 0.6 * roomy.n_bytes / 2**30)
    with caplog.at_level(logging.INFO, logger="afteredit.evaluate.inference.kept_blocks"):
        first = score(lm, pairs, base)
        edit(lm, 2)
        second = score(lm, pairs, base)
    assert 0 < base.n_bytes <= 0.6 * roomy.n_bytes
    assert first == score(make_unedited(lm), pairs) and second != first
    edit(lm, 2)
    assert second == score(lm, pairs)
    assert [record.message for record in caplog.records] == [f"speed.cache_gib={base.gib:g} is full: what is "
            "measured beyond it runs all blocks at every checkpoint"]  # fmt: skip


def make_unedited(lm):
    lm.weights.restore()
    return lm


def test_a_pass_that_breaks_off_keeps_nothing(lm, pairs, monkeypatch):
    lm.weights.keep_base([lm.mlp_out_name(2)])
    base, logits = BaseBlocks(lm, GIB), lm.logits
    calls = [0]

    def failing(hidden):
        calls[0] += 1
        if calls[0] == 2:
            raise KeyboardInterrupt
        return logits(hidden)

    monkeypatch.setattr(lm, "logits", failing)
    with pytest.raises(KeyboardInterrupt):
        score(lm, pairs, base)
    assert len(base._kept) <= 1  # the prefix's own pass, which was whole
    assert score(lm, pairs, base) == score(lm, pairs)


def test_a_model_whose_blocks_need_those_below_runs_whole_and_the_log_says_so_once(lm, pairs, caplog):
    left: list[torch.Tensor] = []
    lm.mlp_out(0).register_forward_hook(lambda _m, _i, output: left.append(output))
    lm.mlp_out(2).register_forward_hook(lambda _m, _i, output: output + left.pop() if left else output)
    lm.weights.keep_base([lm.mlp_out_name(2)])
    assert not can_start_at(lm, 2) and lowest_edited(lm) == 2
    left.clear()
    base = BaseBlocks(lm, GIB)
    with caplog.at_level(logging.INFO, logger="afteredit.evaluate.inference.kept_blocks"):
        for _ in range(2):
            assert score(lm, pairs, base) == score(lm, pairs)
    assert base.n_bytes == 0
    assert len(caplog.records) == 1 and "all are run at every checkpoint" in caplog.text


def test_a_matrix_that_no_block_writes_with_switches_it_off(lm):
    lm.weights.keep_base([lm.mlp_out_name(2)])
    lm.weights.base["model.embed_tokens.weight"] = torch.zeros(1)
    assert lowest_edited(lm) == 0
