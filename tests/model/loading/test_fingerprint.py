"""Tests that a model's fingerprint changes with everything its answers depend on, and with nothing else."""

import copy

import pytest
import torch

from afteredit.model.lm import LM
from afteredit.tests.tiny.models import random_model


def fingerprint_now(lm: LM) -> str:
    """Returns the fingerprint of the model as it is now."""
    return LM(lm.model, lm.tokenizer).fingerprint


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_the_fingerprint_sees_every_entry_and_where_it_stands(make_lm, family, dtype):
    lm = make_lm(family, dtype=dtype)
    weight = lm.mlp_out(2).weight
    original, fingerprints = weight.clone(), [lm.fingerprint]
    places = [(0, 0), (7, 5), (weight.shape[0] - 1, weight.shape[1] - 1)]
    for row, column in places:
        weight[row, column] = torch.nextafter(weight[row, column], torch.tensor(torch.inf, dtype=dtype))
        fingerprints.append(fingerprint_now(lm))
        weight.copy_(original)
    for dim in (0, 1):
        order = torch.arange(weight.shape[dim])
        order[[1, 5]] = order[[5, 1]]  # two rows, two columns, at the same bytes of eight
        weight.copy_(original.index_select(dim, order))
        fingerprints.append(fingerprint_now(lm))
        weight.copy_(original)
    next(parameter for parameter in lm.model.parameters() if parameter.ndim == 1)[-1] += 1
    fingerprints.append(fingerprint_now(lm))
    assert len(set(fingerprints)) == len(fingerprints) == 7


def test_the_fingerprint_does_not_depend_on_where_a_parameter_lies_in_memory(make_lm):
    lm = make_lm("llama")
    module = lm.mlp_out(0)
    rows, columns = module.weight.shape
    moved = torch.empty(rows * columns + 1)[1:].view(rows, columns)
    moved.copy_(module.weight)
    module.weight = torch.nn.Parameter(moved, requires_grad=False)
    assert fingerprint_now(lm) == lm.fingerprint
    module.weight = torch.nn.Parameter(moved.T.contiguous().T, requires_grad=False)
    assert fingerprint_now(lm) == lm.fingerprint


def test_the_fingerprint_sees_matrices_of_odd_width(tokenizer):
    lm = LM(random_model("gpt2", len(tokenizer), n_embd=15, n_layer=2, n_head=3), tokenizer)
    lm.model.transformer.wte.weight[3, 2] *= 2
    assert fingerprint_now(lm) != lm.fingerprint


def test_the_fingerprint_sees_the_tokenizer_its_chat_template_and_how_it_is_asked(make_lm, tokenizer):
    lm = make_lm("gpt2")
    more, chat = copy.deepcopy(tokenizer), copy.deepcopy(tokenizer)
    more.add_tokens(["DiMaggio"])
    chat.chat_template = "{{ messages[0].content }}"
    lms = [LM(lm.model, tokenizer), LM(lm.model, more), LM(lm.model, chat), LM(lm.model, tokenizer, start_token="<s>")]
    assert [other.fingerprint == lm.fingerprint for other in lms] == [True, False, False, False]
    assert LM(lm.model, chat, prompt="chat").fingerprint != lms[2].fingerprint


def test_a_batch_that_was_cut_and_padded_leaves_the_fingerprint(make_lm, tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    lm = make_lm("gpt2")
    tokenizer.pad_token = tokenizer.eos_token
    before = LM(lm.model, tokenizer).fingerprint
    tokenizer(["a", "a b c d"], padding=True, truncation=True, max_length=3)
    assert LM(lm.model, tokenizer).fingerprint == before
