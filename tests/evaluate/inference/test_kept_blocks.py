"""Every shortcut of measuring gives what plain forward passes give, on every architecture, edited or not; keeping the
output of the blocks below the edited one changes no bit."""

from __future__ import annotations

import logging
import random

import pytest
import torch
from torch.testing import assert_close
from transformers import DynamicCache

from afteredit.edit.update import LowRank
from afteredit.evaluate.inference import batches
from afteredit.evaluate.inference.generation import score_and_generate
from afteredit.evaluate.inference.kept_blocks import KeptBlocks, can_start_at, lowest_edited
from afteredit.evaluate.inference.likelihood import may_pad, score
from afteredit.model.hooks import hooked
from afteredit.model.tensors import first, pad

GIB = 0.1
IN_FLOAT32 = ("gptj", "gemma2")  # their attention's weights, whatever the model's own dtype


def edit(lm, layer: int, seed: int = 0) -> None:
    D, F = lm.widths(layer)
    generator = torch.Generator().manual_seed(seed)
    left, right = torch.randn(D, 1, generator=generator), torch.randn(F, 1, generator=generator)
    lm.weights.add({lm.mlp_out_name(layer): LowRank(0.3 * left.double(), right.double())})


def continuations_by_context(vocab: int) -> dict[tuple[int, ...], list[tuple[int, ...]]]:
    """Returns contexts after one prefix of 20 tokens, two after another, two alone; continuations of up to 6 tokens."""
    rng = random.Random(0)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(rng.randrange(2, vocab) for _ in range(n))

    prefix, other = ids(20), ids(17)
    contexts = [(*prefix, *ids(n)) for n in (3, 7, 3, 12, 1)] + [(*other, *ids(n)) for n in (2, 5)] + [ids(4), ids(9)]
    kinds = [[ids(1), ids(6)], [ids(3), ids(4), ids(1)], [], [ids(2)]]
    return {context: kinds[i % len(kinds)] for i, context in enumerate(contexts)}


def exactness(lm) -> float:
    return 1e-5 if lm.model.config.model_type in IN_FLOAT32 else 1e-10


def pairs_of(continuations) -> list[tuple]:
    return [(context, continuation) for context, group in continuations.items() for continuation in group]


@torch.no_grad()
def plain_log_p(lm, context, continuation) -> list[float]:
    """Returns the log p of the model's own forward on one row, with no cache, no padding and nothing shared."""
    logits_TV = lm.model(torch.tensor([[*context, *continuation]]), use_cache=False).logits[0, len(context) - 1 : -1]
    return logits_TV.log_softmax(-1)[range(len(continuation)), list(continuation)].tolist()


@torch.no_grad()
def plain_answer(lm, context, n_tokens: int) -> list[int]:
    ids = list(context)
    for _ in range(n_tokens):
        ids.append(int(lm.model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids[len(context) :]


def tokens_run(lm, block: int, work) -> int:
    """Returns the number of tokens that the block computes during `work`."""
    n_tokens = [0]

    def count(_module, _args, output) -> None:
        n_tokens[0] += output[..., 0].numel()

    with hooked({lm.mlp_out(block): count}):
        work()
    return n_tokens[0]


def check_scores(lm) -> None:
    """Asserts that scores before and after edits are those of plain passes, and that keeping blocks changes no bit."""
    kept_blocks = KeptBlocks(lm, GIB)
    lm.weights.keep_base(map(lm.mlp_out_name, [2, 3]))
    pairs = pairs_of(continuations_by_context(len(lm.tokenizer)))
    for checkpoint in range(3):
        scores = score(lm, pairs, kept_blocks)
        for pair, scored in zip(pairs, scores, strict=True):
            assert_close(list(scored.log_p), plain_log_p(lm, *pair), atol=exactness(lm), rtol=0)
        assert scores == score(lm, pairs)
        assert kept_blocks.n_bytes > 0
        edit(lm, 2 + checkpoint % 2, checkpoint)
    below, above = (tokens_run(lm, block, lambda: score(lm, pairs, kept_blocks)) for block in (1, 2))
    assert below == 0 < above


def check_answers(lm, n_tokens: int) -> None:
    """Asserts the same of greedy answers, whose own tokens run through all blocks."""
    kept_blocks = KeptBlocks(lm, GIB)
    lm.weights.keep_base([lm.mlp_out_name(2)])
    continuations = continuations_by_context(len(lm.tokenizer))
    before = None
    for checkpoint in range(2):
        scores, answers = score_and_generate(lm, continuations, n_tokens, None, kept_blocks)
        assert answers == {context: plain_answer(lm, context, n_tokens) for context in continuations} != before
        assert (scores, answers) == score_and_generate(lm, continuations, n_tokens)
        before = answers
        edit(lm, 2, checkpoint)

    def repeat() -> None:
        score_and_generate(lm, continuations, n_tokens, None, kept_blocks)

    assert tokens_run(lm, 1, repeat) <= len(continuations) * (n_tokens - 1)
    assert tokens_run(lm, 2, repeat) > sum(map(len, continuations)) / 2


def test_scores_and_answers_are_those_of_plain_passes_on_every_architecture(exact_lm, monkeypatch):
    monkeypatch.setattr(batches, "TOKEN_BUDGET", 60)  # some rows are read together, some alone
    check_scores(exact_lm)
    exact_lm.weights.restore()
    check_answers(exact_lm, 4)


@pytest.mark.parametrize("budget", [1, 1024])
def test_so_they_are_with_every_row_alone_and_with_all_rows_together(make_lm, budget, monkeypatch):
    monkeypatch.setattr(batches, "TOKEN_BUDGET", budget)
    lm = make_lm("gpt2", dtype=torch.float64)
    check_scores(lm)
    lm.weights.restore()
    check_answers(lm, 4)


def test_where_no_padding_may_stand_the_log_says_so_once(exact_lm, caplog):
    continuations = {(1, 2, 3, 4, 5): [(6, 7)]}  # 12 columns, and the narrow window is 9
    with caplog.at_level(logging.INFO, logger="afteredit.model"):
        answers = [may_pad(exact_lm, continuations, 0) for _ in range(2)]
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
    entering = []
    with hooked({lm.anatomy.blocks[1]: lambda _m, _i, output: entering.append(first(output))}):
        whole_BTD = lm.forward(ids_BT, mask_BT)
    above_BTD = lm.forward_from(2, entering[0], ids_BT, mask_BT, DynamicCache(), 0)
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
    return pairs_of(continuations_by_context(len(lm.tokenizer)))


def test_nothing_is_kept_before_the_edited_blocks_are_known(lm, pairs):
    kept_blocks = KeptBlocks(lm, GIB)
    score(lm, pairs, kept_blocks)
    assert kept_blocks.n_bytes == 0
    lm.weights.keep_base([lm.mlp_out_name(0)])  # below it there is nothing
    score(lm, pairs, kept_blocks)
    assert kept_blocks.n_bytes == 0


def test_an_edit_of_a_lower_block_starts_anew(lm, pairs):
    kept_blocks = KeptBlocks(lm, GIB)
    lm.weights.keep_base([lm.mlp_out_name(3)])
    score(lm, pairs, kept_blocks)
    above = kept_blocks.n_bytes
    edit(lm, 1)
    assert score(lm, pairs, kept_blocks) == score(lm, pairs)
    assert 0 < kept_blocks.n_bytes < above and tokens_run(lm, 1, lambda: score(lm, pairs, kept_blocks)) > 0
    assert score(lm, pairs, kept_blocks) == score(lm, pairs)
    assert tokens_run(lm, 0, lambda: score(lm, pairs, kept_blocks)) == 0


def test_what_a_view_shows_is_measured(lm, pairs):
    kept_blocks = KeptBlocks(lm, GIB)
    edit(lm, 2)
    raw = score(lm, pairs, kept_blocks)
    with lm.weights.seen_through(lambda W_base_DF, W_DF: (W_base_DF + W_DF) / 2):
        viewed = score(lm, pairs, kept_blocks)
        assert viewed == score(lm, pairs) != raw
    lm.weights.restore()
    assert score(lm, pairs, kept_blocks) == score(lm, pairs) != viewed


def test_beyond_the_memory_allowed_all_blocks_run_and_the_log_says_so_once(lm, pairs, caplog):
    lm.weights.keep_base([lm.mlp_out_name(2)])
    roomy = KeptBlocks(lm, GIB)
    score(lm, pairs, roomy)
    kept_blocks = KeptBlocks(lm, 0.6 * roomy.n_bytes / 2**30)
    with caplog.at_level(logging.INFO, logger="afteredit.evaluate.inference.kept_blocks"):
        first = score(lm, pairs, kept_blocks)
        edit(lm, 2)
        second = score(lm, pairs, kept_blocks)
    assert 0 < kept_blocks.n_bytes <= 0.6 * roomy.n_bytes
    assert first == score(make_unedited(lm), pairs) and second != first
    edit(lm, 2)
    assert second == score(lm, pairs)
    assert [record.message for record in caplog.records] == [f"speed.cache_gib={kept_blocks.gib:g} is full: what is "
            "measured beyond it runs all blocks at every checkpoint"]  # fmt: skip


def make_unedited(lm):
    lm.weights.restore()
    return lm


def test_a_pass_that_breaks_off_keeps_nothing(lm, pairs, monkeypatch):
    lm.weights.keep_base([lm.mlp_out_name(2)])
    kept_blocks, logits = KeptBlocks(lm, GIB), lm.logits
    calls = [0]

    def failing(hidden):
        calls[0] += 1
        if calls[0] == 2:
            raise KeyboardInterrupt
        return logits(hidden)

    monkeypatch.setattr(lm, "logits", failing)
    with pytest.raises(KeyboardInterrupt):
        score(lm, pairs, kept_blocks)
    assert len(kept_blocks._passes) <= 1  # the prefix's batch, which was whole
    assert score(lm, pairs, kept_blocks) == score(lm, pairs)


def test_a_model_whose_blocks_need_those_below_runs_whole_and_the_log_says_so_once(lm, pairs, caplog):
    left: list[torch.Tensor] = []
    lm.mlp_out(0).register_forward_hook(lambda _m, _i, output: left.append(output))
    lm.mlp_out(2).register_forward_hook(lambda _m, _i, output: output + left.pop() if left else output)
    lm.weights.keep_base([lm.mlp_out_name(2)])
    assert not can_start_at(lm, 2) and lowest_edited(lm) == 2
    left.clear()
    kept_blocks = KeptBlocks(lm, GIB)
    with caplog.at_level(logging.INFO, logger="afteredit.evaluate.inference.kept_blocks"):
        for _ in range(2):
            assert score(lm, pairs, kept_blocks) == score(lm, pairs)
    assert kept_blocks.n_bytes == 0
    assert len(caplog.records) == 1 and "all are run at every checkpoint" in caplog.text


def test_a_matrix_that_no_block_writes_with_switches_it_off(lm):
    lm.weights.keep_base([lm.mlp_out_name(2)])
    lm.weights.base["model.embed_tokens.weight"] = torch.zeros(1)
    assert lowest_edited(lm) == 0
