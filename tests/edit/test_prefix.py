"""Shared prefixes change the cost of a forward pass, never its result: held against plain passes in float64."""

import pytest
import torch
from torch.testing import assert_close
from transformers.models.gptj import modeling_gptj
from transformers.models.llama import modeling_llama

from afteredit.edit.prefix import Replay

LAYER = 1
CASES = {
    "subject_first_in_one_row": [("China", ""), ("The sport that brought Joe DiMaggio", " to fame is"),
                                 ("The banknotes printed for Peru", " carry the name of its money, the")],
    "no_row_has_a_prefix": [("China", " is a"), ("Peru", ""), ("Japan", " is known for its old and")],
    "same_length": [("The mother tongue of Ann", " is"), ("The mother tongue of Bob", " is")],
}  # fmt: skip


class Wide:
    """`torch` to a modelling file whose hard-wired float32 islands (norms, attention scores) would hide 1e-9."""

    float32 = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


@pytest.fixture(autouse=True)
def float64_throughout(monkeypatch):
    for module in (modeling_gptj, modeling_llama):
        monkeypatch.setattr(module, "torch", Wide())


@pytest.fixture(params=[(name, start) for name in CASES for start in (None, "<s>")], ids=str)
def rows(request, make_lm, family):
    """A float64 model, token rows of different lengths, each row's subject_last."""
    name, start = request.param
    lm = make_lm(family, start_token=start, dtype=torch.float64)
    texts = CASES[name]
    ids = [lm.encode(front + back) for front, back in texts]
    return lm, ids, [len(lm.encode(front)) - 1 for front, _ in texts]


def offsets(lm, n_rows: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(n_rows, lm.widths(LAYER)[0], generator=generator, dtype=torch.float64)


def test_replay_with_an_offset_is_the_plain_forward_pass(rows, plain_pass):
    lm, ids, lasts = rows
    replay = Replay(lm, ids, lasts, LAYER)
    offset_BD = offsets(lm, len(ids))
    hidden_BTD = replay.hidden(offset_BD)
    for i, (row, at) in enumerate(zip(ids, lasts, strict=True)):
        plain = plain_pass(lm, row, LAYER, at, offset_BD[i])
        assert_close(hidden_BTD[i, : len(row) - at], plain.hidden_TD[at:], rtol=1e-9, atol=1e-9)
        assert_close(replay.keys_BF[LAYER][i], plain.keys_TF[at], rtol=1e-9, atol=1e-9)
        assert_close(replay.values_BD[LAYER][i], plain.value_D, rtol=1e-9, atol=1e-9)


def test_one_offset_for_all_rows_is_added_to_each(rows):
    lm, ids, lasts = rows
    replay = Replay(lm, ids, lasts, LAYER)
    offset_D = offsets(lm, 1)[0]
    assert torch.equal(replay.hidden(offset_D), replay.hidden(offset_D.expand(len(ids), -1)))


def test_the_gradient_is_that_of_the_plain_forward_pass(rows, plain_pass):
    lm, ids, lasts = rows
    replay = Replay(lm, ids, lasts, LAYER)
    start_D = offsets(lm, 1)[0]

    def gradient(hidden_of):
        offset_D = start_D.clone().requires_grad_()
        weights_D = torch.linspace(-1, 1, len(offset_D), dtype=torch.float64)
        total = sum((hidden_of(offset_D, i) @ weights_D).sin().sum() for i in range(len(ids)))
        return torch.autograd.grad(total, offset_D)[0]

    shared_D = gradient(lambda offset_D, i: replay.hidden(offset_D)[i, : len(ids[i]) - lasts[i]])
    plain_D = gradient(lambda offset_D, i: plain_pass(lm, ids[i], LAYER, lasts[i], offset_D).hidden_TD[lasts[i] :])
    assert float(plain_D.norm()) > 1e-3
    assert_close(shared_D, plain_D, rtol=1e-8, atol=1e-8)


def test_a_zero_offset_is_the_models_own_forward(rows):
    lm, ids, lasts = rows
    replay = Replay(lm, ids, lasts, LAYER)
    hidden_BTD = replay.hidden(torch.zeros(lm.widths(LAYER)[0], dtype=torch.float64))
    for i, (row, at) in enumerate(zip(ids, lasts, strict=True)):
        own_TV = lm.model(input_ids=torch.tensor([row])).logits[0, at:].double()
        assert_close(lm.logits(hidden_BTD[i, : len(row) - at]), own_TV, rtol=1e-5, atol=1e-6)


def test_a_replay_can_be_run_again(rows):
    """The frozen cache is seen by every call and extended by none."""
    lm, ids, lasts = rows
    replay = Replay(lm, ids, lasts, LAYER)
    offset_BD = offsets(lm, len(ids))
    once = replay.hidden(offset_BD)
    replay.hidden(-offset_BD)
    assert torch.equal(replay.hidden(offset_BD), once)


def test_no_hook_is_left_behind(make_lm, family):
    lm = make_lm(family)
    ids = lm.encode("The mother tongue of Ann is")
    Replay(lm, [ids], [len(ids) - 2], LAYER).hidden(torch.ones(lm.widths(LAYER)[0]))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in lm.model.modules())
