"""Tests that LM runs the model with any padding and from any block up."""

import pytest
import torch
from torch.testing import assert_close
from transformers import DynamicCache

from afteredit.model.hooks import hooked
from afteredit.model.lm import LM
from afteredit.model.tensors import first, pad


def test_hidden_states_do_not_depend_on_the_padding_side(make_lm, family, float64_throughout):
    lm = make_lm(family, dtype=torch.float64)
    rows = [lm.tokens.encode(text) for text in ("China", "The sport that brought Joe DiMaggio to fame is", "Fenrir is")]
    lefts, rights = (lm.forward(*pad(rows, side)) for side in ("left", "right"))
    for row, left_TD, right_TD in zip(rows, lefts, rights, strict=True):
        assert_close(left_TD[-len(row) :], right_TD[: len(row)], rtol=0, atol=1e-11)
        own_TV = lm.model(input_ids=torch.tensor([row])).logits[0]
        assert_close(lm.logits(right_TD[: len(row)]), own_TV, rtol=0, atol=1e-11)


@torch.no_grad()
def test_a_cache_is_given_under_the_name_that_the_decoder_has_for_it(make_lm, tokenizer, float64_throughout):
    """The newer name stands in for later versions of transformers."""
    older = make_lm("llama", dtype=torch.float64)
    ids_BT, mask_BT = torch.tensor([[5, 9, 7, 30]]), torch.ones(1, 4, dtype=torch.long)
    decoder = older.anatomy.decoder
    forward = type(decoder).forward

    def renamed(input_ids=None, cache=None, **others):
        if isinstance(others.get("past_key_values"), DynamicCache):
            raise TypeError("past_key_values")
        return forward(decoder, input_ids=input_ids, **{**others, "past_key_values": cache})

    hidden_BTD = older.forward(ids_BT, mask_BT)
    decoder.forward = renamed
    newer, cache = LM(older.model, tokenizer), DynamicCache()
    newer.forward(ids_BT[:, :2], mask_BT[:, :2], cache)
    assert newer.capabilities.reads_on_from_cache and cache.get_seq_length() == 2
    assert_close(newer.forward(ids_BT[:, 2:], mask_BT, cache, 2), hidden_BTD[:, 2:], rtol=0, atol=1e-11)


@torch.no_grad()
def test_blocks_below_are_skipped_for_the_hidden_states_given(exact_lm):
    lm, entering, ids_BT = exact_lm, [], torch.tensor([[5, 9, 7], [30, 11, 8]])
    mask_BT = torch.ones_like(ids_BT)
    with hooked({lm.anatomy.blocks[1]: lambda _m, _a, output: entering.append(first(output))}):
        expected_BTD = lm.forward(ids_BT, mask_BT)
    lm.forward_from(2, entering[0], ids_BT, mask_BT, None, 0)  # the first call probes what blocks return
    with hooked({lm.mlp_out(1): lambda *_: pytest.fail("block 1 ran")}):
        hidden_BTD = lm.forward_from(2, entering[0], torch.zeros_like(ids_BT), mask_BT, None, 0)
    assert torch.equal(hidden_BTD, expected_BTD)
    assert torch.equal(lm.forward(ids_BT, mask_BT), expected_BTD)
