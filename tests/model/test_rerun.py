"""Tests in float64, against plain passes, that rerunning rows from the subject's last token changes the cost of a pass
and not its result."""

import logging

import pytest
import torch
from torch.testing import assert_close
from transformers import DynamicCache

from afteredit.model import rerun as module
from afteredit.model.hooks import hooked
from afteredit.model.kv_cache import keys_values
from afteredit.model.lm import LM
from afteredit.model.rerun import Rerun
from afteredit.tests.tiny.models import n_hooks

LAYER = 1
SUBJECTS = [
    ("China", ""),
    ("The sport that brought Joe DiMaggio", " to fame is"),
    ("It is written on the banknotes printed for Peru", " that their name is, and has always been, the"),
]
CASES = {
    "subject_first_in_one_row": SUBJECTS,
    "a_start_token_first": [("<s>" + front, back) for front, back in SUBJECTS],
    "no_row_has_a_prefix": [("China", " is a"), ("Peru", ""), ("Japan", " is known for its old and")],
    "prefixes_repeated": [
        (f"{context} {subject}", back)
        for context in ("It is written on the banknotes printed for Peru.", "The sport that brought him to it.")
        for subject, back in (("China", " is"), ("the old Joe DiMaggio", " has always been the"), ("Peru", ""))
    ]
    + [("It is written on the", " banknotes"), ("China", " is"), ("Japan or Peru", " is")],
    "same_length": [("The mother tongue of Ann", " is"), ("The mother tongue of Bob", " is")],
}  # fmt: skip
IDS = [5, 9, 7, 30, 11, 8]

pytestmark = pytest.mark.usefixtures("float64_throughout")
one_case = pytest.mark.parametrize("rows", ["subject_first_in_one_row"], indirect=True)
# absolute positions and transposed matrices; flattened MLPs; normalised MLP outputs and short windows
few_families = pytest.mark.parametrize("exact_lm", ["gpt2", "opt", "gemma2-windows"], indirect=True)


@pytest.fixture(params=CASES)
def rows(request, exact_lm):
    """A float64 model, token rows of different lengths, each row's subject_last."""
    texts = CASES[request.param]
    ids = [exact_lm.tokens.encode(front + back) for front, back in texts]
    return exact_lm, ids, [len(exact_lm.tokens.encode(front)) - 1 for front, _ in texts]


def offsets(lm, n_rows: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(n_rows, lm.widths(LAYER)[0], generator=generator, dtype=torch.float64)


def assert_is_plain(rerun, ids, lasts, plain_pass, layer: int = LAYER) -> None:
    """Hidden states and their gradient under an offset, and what was recorded, are those of plain passes."""
    lm, offset_BD = rerun.lm, offsets(rerun.lm, len(ids)).requires_grad_()
    weights_D = torch.linspace(-1, 1, offset_BD.shape[1], dtype=torch.float64)
    hidden_BTD, total, plain_total = rerun.hidden(offset_BD, layer), 0.0, 0.0
    for i, (row, last) in enumerate(zip(ids, lasts, strict=True)):
        plain = plain_pass(lm, row, layer, last, offset_BD[i])
        hidden_TD = hidden_BTD[i, : len(row) - last]
        assert_close(hidden_TD, plain.hidden_TD[last:], rtol=1e-9, atol=1e-9)
        assert_close(rerun.keys_BF[layer][i], plain.keys_TF[last].detach(), rtol=1e-9, atol=1e-9)
        assert_close(rerun.values_BD[layer][i], plain.value_D.detach(), rtol=1e-9, atol=1e-9)
        total = total + (hidden_TD @ weights_D).sin().sum()
        plain_total = plain_total + (plain.hidden_TD[last:] @ weights_D).sin().sum()
    gradient_BD, expected_BD = (torch.autograd.grad(scalar, offset_BD)[0] for scalar in (total, plain_total))
    assert float(expected_BD.norm(dim=1).min()) > 1e-4
    assert_close(gradient_BD, expected_BD, rtol=1e-8, atol=1e-8)


def test_rows_are_longer_than_the_narrow_window(tokenizer):
    """The window is 9 tokens: before the subject's last token, and from there on."""
    front, back = map(len, tokenizer(list(SUBJECTS[2]), add_special_tokens=False).input_ids)
    assert front > 10 and back > 10


def test_an_offset_and_its_gradient_are_those_of_the_plain_forward_pass(rows, plain_pass):
    lm, ids, lasts = rows
    rerun = Rerun(lm, ids, lasts, LAYER)
    assert not rerun.uncut  # no architecture here needs it
    assert_is_plain(rerun, ids, lasts, plain_pass)


@few_families
@one_case
def test_uncut_rows_give_the_plain_forward_pass_too(rows, plain_pass):
    lm, ids, lasts = rows
    assert_is_plain(Rerun(lm, ids, lasts, LAYER, uncut=True), ids, lasts, plain_pass)


@few_families
@one_case
def test_a_rerun_can_be_repeated_and_one_offset_serves_all_rows(rows):
    """Every call sees the frozen cache and none extends it."""
    lm, ids, lasts = rows
    rerun, offset_D = Rerun(lm, ids, lasts, LAYER), offsets(lm, 1)[0]
    hidden_BTD = rerun.hidden(offset_D)
    rerun.hidden(-offset_D)
    assert torch.equal(rerun.hidden(offset_D.expand(len(ids), -1)), hidden_BTD)


@pytest.mark.parametrize(("layer", "uncut"), [(LAYER, False), (LAYER, True), (3, False)], ids=["", "uncut", "the last"])
@one_case
def test_hidden_states_at_places_are_those_of_all_columns(rows, layer, uncut):
    lm, ids, lasts = rows
    rerun, offset_BD = Rerun(lm, ids, lasts, layer, uncut=uncut), offsets(lm, len(ids)).requires_grad_()
    places = torch.tensor([0, 1, 2, 2]), torch.tensor([0, 1, 0, 5])  # each once, as an optimisation reads
    all_ND, few_ND = rerun.hidden(offset_BD)[places], rerun.hidden(offset_BD, places=places)
    assert_close(few_ND, all_ND, rtol=1e-9, atol=1e-9)
    gradient_BD, expected_BD = (torch.autograd.grad(ND.sin().sum(), offset_BD)[0] for ND in (few_ND, all_ND))
    assert_close(gradient_BD, expected_BD, rtol=1e-8, atol=1e-8)


@few_families
@one_case
def test_every_block_above_is_recorded_and_takes_an_offset_of_its_own(rows, plain_pass):
    lm, ids, lasts = rows
    rerun = Rerun(lm, ids, lasts, 0)
    assert list(rerun.keys_BF) == list(range(lm.n_blocks))
    for layer in range(lm.n_blocks):
        assert_is_plain(rerun, ids, lasts, plain_pass, layer)


@few_families
def test_nothing_of_the_blocks_below_is_held_and_no_hook_stays(exact_lm):
    before = n_hooks(exact_lm)
    rerun = Rerun(exact_lm, [IDS, IDS[1:]], [4, 3], 2)
    rerun.hidden(torch.ones(exact_lm.widths(2)[0], dtype=torch.float64))
    assert n_hooks(exact_lm) == before
    caches = [value for args, kwargs in rerun._calls.values() for value in (*args, *kwargs.values())
              if isinstance(value, DynamicCache)]  # fmt: skip
    below, held = keys_values(caches[0])[:2], keys_values(caches[0])[2:]
    assert below == [(None, None)] * 2 and all(keys.shape[:3:2] == (2, 4) for keys, _ in held)


def running_mean(_module, _args, output: torch.Tensor) -> torch.Tensor:
    """Adds the mean of all positions so far: causal, but no cache of keys and values knows it."""
    return output + output.cumsum(1) / torch.arange(1, output.shape[1] + 1)[:, None]


class Remembers:
    """Makes a block's output depend on how often the block was run."""

    def __init__(self):
        self.n_calls = 0

    def __call__(self, _module, _args, output: torch.Tensor) -> torch.Tensor:
        self.n_calls += 1
        return output * (1 + self.n_calls % 2)


@pytest.mark.parametrize("hook", [running_mean, Remembers()], ids=["running mean", "remembers"])
def test_a_model_that_cannot_be_cut_runs_uncut_rows_and_the_log_says_so_once(make_lm, hook, plain_pass, caplog):
    lm = make_lm("llama", dtype=torch.float64)
    ids, lasts = [IDS, [4, 6, 12]], [3, 1]
    with hooked({lm.anatomy.blocks[2]: hook}):
        with caplog.at_level(logging.INFO, logger="afteredit.model"):
            reruns = [Rerun(lm, ids, lasts, LAYER) for _ in range(2)]
        assert all(rerun.uncut for rerun in reruns)
        assert len(caplog.records) == 1 and "LlamaForCausalLM: its blocks cannot be run again" in caplog.text
        if hook is running_mean:  # no two passes of the other are alike
            assert_is_plain(reruns[0], ids, lasts, plain_pass)


def test_a_model_is_probed_once(make_lm, monkeypatch):
    lm, probes, probe = make_lm("gpt2"), [], module._reruns_like_rows_alone
    monkeypatch.setattr(module, "_reruns_like_rows_alone", lambda lm: probes.append(lm) or probe(lm))
    for layer in (1, 2):
        assert not Rerun(lm, [IDS], [1], layer).uncut
    assert probes == [lm]
    assert not Rerun(LM(lm.model, lm.tokenizer), [IDS], [1], 1).uncut and len(probes) == 2
