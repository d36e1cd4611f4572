"""Tests that capabilities are found by running the model, and that a missing one is logged once."""

import logging
from dataclasses import replace

import pytest
import torch

from afteredit.model.capabilities import check_parts, continues
from afteredit.model.hooks import hooked
from afteredit.model.lm import LM
from afteredit.store.errors import BadInput


def test_a_message_is_logged_once_for_each_model(make_lm, caplog):
    with caplog.at_level(logging.INFO, logger="afteredit.model"):
        for lm in (make_lm("gpt2"), make_lm("llama")):
            for text in ("one", "two", "one"):
                lm.capabilities.log_once(text)
    assert [r.message for r in caplog.records] == [f"{name}: {text}" for name in ("GPT2LMHeadModel", "LlamaForCausalLM")
                                                   for text in ("one", "two")]  # fmt: skip


def test_answers_that_are_not_the_models_own_are_refused(make_lm):
    lm = make_lm("llama")
    check_parts(lm.model, lm.anatomy, lm.run_decoder, lm.logits)
    others = [(lm.run_decoder, lambda hidden: 2 * lm.logits(hidden)),
              (lambda *args: lm.run_decoder(*args).flip(-1), lm.logits),
              (lambda *args: lm.run_decoder(*args)[:, 1:], lm.logits)]  # fmt: skip
    for run, logits in others:
        with pytest.raises(BadInput, match="LlamaForCausalLM: its answers are not those of its decoder followed by"):
            check_parts(lm.model, lm.anatomy, run, logits)
    wrong = replace(lm.anatomy, after_blocks=torch.nn.Identity())
    with pytest.raises(BadInput, match="its answers are not those"):
        check_parts(lm.model, wrong, lm.run_decoder, lm.logits)


def test_a_decoder_that_cannot_be_run_alone_is_refused_with_what_it_raised(make_lm):
    lm = make_lm("gpt2")
    with pytest.raises(BadInput, match=r"GPT2LMHeadModel: its decoder .*\(KeyError: 'pixels'\)"):
        check_parts(lm.model, lm.anatomy, lambda *_args: {}["pixels"], lm.logits)


def test_a_model_that_reads_the_tokens_on_both_sides_is_refused(make_lm, tokenizer):
    model = make_lm("llama").model
    model.model.layers[0].register_forward_hook(lambda _m, _a, output: output + output.mean(1, keepdim=True))
    with pytest.raises(BadInput, match="LlamaForCausalLM reads the tokens on both sides"):
        LM(model, tokenizer)


def test_a_model_whose_later_tokens_see_what_no_cache_holds_cannot_be_continued(make_lm):
    lm = make_lm("llama", dtype=torch.float64)
    assert continues(lm.run_decoder)
    with hooked({lm.anatomy.blocks[1]: lambda _m, _a, output: output + output.cumsum(1)}):
        assert not continues(lm.run_decoder)


@pytest.mark.parametrize("exact_lm", ["gemma2", "gemma2-windows", "llama"], indirect=True)
def test_padding_may_stand_where_no_window_is_shorter_than_the_rows(exact_lm, caplog):
    window = getattr(exact_lm.model.config, "sliding_window", None)
    with caplog.at_level(logging.INFO, logger="afteredit.model"):
        allowed = [exact_lm.capabilities.may_pad(columns) for columns in (9, 10, 11)]
    assert allowed == ([True, False, False] if window == 9 else [True] * 3)
    assert len(caplog.records) == (window == 9)


@pytest.mark.parametrize("exact_lm", ["gpt2", "opt", "llama", "gemma2"], indirect=True)
def test_only_gemma_2_changes_what_an_mlp_writes_into_the_stream(exact_lm):
    joins = exact_lm.model.config.model_type != "gemma2"
    assert [exact_lm.capabilities.mlp_joins_stream(layer) for layer in (0, 3, 0)] == [joins] * 3


def test_rerunning_is_probed_once_and_never_where_no_cache_can_be_continued(make_lm):
    lm, answers = make_lm("llama"), [False]
    assert not lm.capabilities.can_rerun(answers.pop) and not lm.capabilities.can_rerun(answers.pop)
    model = make_lm("llama", dtype=torch.float64).model
    with hooked({model.model.layers[1]: lambda _m, _a, output: output + output.cumsum(1)}):
        assert not LM(model, lm.tokenizer).capabilities.can_rerun(answers.pop)
