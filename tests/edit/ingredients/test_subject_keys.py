"""Tests keys and streams at the subject's last token against plain forward passes."""

import torch
from torch.testing import assert_close

from afteredit.edit.ingredients import subject_keys as keys
from afteredit.edit.ingredients.subject_keys import subject_keys, subject_streams
from afteredit.model.lm import LM

# keys are kept in float32: two that are one by the mathematics are at most one step of 2⁻²³ apart
STORED = {"rtol": 2**-23, "atol": 1e-11}
CONTEXTS = ("", "The old man said that", "It is known", "Because we")


def subject_at(lm, fact, context=""):
    """Returns the row of ids and the index of the subject's last token, the last one of the text that ends there."""
    front = f"{context}. " if context else ""
    row = lm.tokens.encode(front + fact.question)
    return row, len(lm.tokens.encode(front + fact.prompt.partition("{}")[0] + fact.subject)) - 1


def plain_key(lm, fact, context, layer, plain_pass) -> torch.Tensor:
    row, at = subject_at(lm, fact, context)
    return plain_pass(lm, row, layer, at).keys_TF[at]


def test_half_of_a_key_is_the_bare_prompts(exact_lm, fact, second_fact, plain_pass, float64_throughout):
    """The rows have many lengths and are padded on the left; some are longer than the attention window."""
    lm, found_FE = exact_lm, subject_keys(exact_lm, [fact, second_fact], CONTEXTS, 2)
    assert max(subject_at(lm, fact, context)[1] for context in CONTEXTS) > 9
    for e, request in enumerate((fact, second_fact)):
        bare_F, *others = [plain_key(lm, request, context, 2, plain_pass) for context in CONTEXTS]
        expected_F = (bare_F + torch.stack(others).mean(0)) / 2
        assert_close(found_FE[:, e], expected_F.float(), rtol=1e-6, atol=1e-6)


def test_without_other_contexts_the_key_is_the_bare_prompts(make_lm, fact, plain_pass):
    lm = make_lm("gpt2", dtype=torch.float64)
    key_F = plain_key(lm, fact, "", 1, plain_pass)
    assert_close(subject_keys(lm, [fact], ("",), 1)[:, 0], key_F.float(), **STORED)


def test_streams_are_the_blocks_outputs_at_the_subject(exact_lm, fact, second_fact, float64_throughout):
    lm, found_DE = exact_lm, subject_streams(exact_lm, [fact, second_fact], 2)
    for e, request in enumerate((fact, second_fact)):
        row, at = subject_at(lm, request)
        outputs = lm.model(torch.tensor([row]), output_hidden_states=True)
        assert_close(found_DE[:, e], outputs.hidden_states[3][0, at].float(), rtol=1e-6, atol=1e-6)


def test_a_large_batch_is_read_in_parts(make_lm, fact, second_fact, monkeypatch, float64_throughout):
    lm, forward, widths = make_lm("llama", dtype=torch.float64), LM.forward, []
    requests = [fact, second_fact, fact]
    at_once = subject_keys(lm, requests, CONTEXTS, 2), subject_streams(lm, requests, 2)
    monkeypatch.setattr(keys, "AT_ONCE", 5)
    monkeypatch.setattr(
        LM, "forward", lambda self, ids_BT, *given: widths.append(len(ids_BT)) or forward(self, ids_BT, *given)
    )
    in_parts = subject_keys(lm, requests, CONTEXTS, 2), subject_streams(lm, requests, 2)
    assert widths == [5, 5, 2, 3]
    for one, other in zip(at_once, in_parts, strict=True):
        assert_close(one, other, **STORED)
