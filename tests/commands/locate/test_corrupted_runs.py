"""Causal traces of one fact, held against a plain double loop over whole passes in float64."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from afteredit.commands.locate import corrupted_runs as module
from afteredit.commands.locate.corrupted_runs import CorruptedRuns, window_around
from afteredit.commands.locate.known_facts import KnownFact
from afteredit.model.hooks import hooked
from afteredit.tests.tiny.models import n_hooks

ATTENTION = {"gpt2": "attn.c_proj", "gptj": "attn.out_proj", "gpt_neox": "attention.dense",
             "opt": "self_attn.out_proj", "llama": "self_attn.o_proj", "gemma2": "self_attn.o_proj"}  # fmt: skip
FACT = KnownFact("f", (5, 9, 7, 30, 11, 8, 21), first=1, last=3, answer=12)
AT_THE_FRONT = KnownFact("g", (9, 7, 30, 4), first=0, last=0, answer=3)
WINDOW = 2
several_families = pytest.mark.parametrize("exact_lm", ["gpt2", "gptj", "gpt_neox", "opt", "llama", "gemma2-windows"],
                                           indirect=True)  # fmt: skip
two_families = pytest.mark.parametrize("exact_lm", ["opt", "gemma2-windows"], indirect=True)

pytestmark = pytest.mark.usefixtures("float64_throughout")


def noise(fact: KnownFact, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(2, fact.last + 1 - fact.first, width, generator=generator, dtype=torch.float64)


def tensor_of(output):
    return output[0] if isinstance(output, tuple) else output


@torch.no_grad()
def plain_effects(lm, fact, noise_SsD, window):
    """Runs the whole model for every draw, kind, token and block, with hooks that say what they change."""
    embedding, blocks = lm.model.get_input_embeddings(), lm.anatomy.blocks
    family = lm.model.config.model_type
    modules = {"hidden": blocks, "mlp": [lm.mlp_out(i) for i in range(lm.n_blocks)],
               "attention": [block.get_submodule(ATTENTION[family]) for block in blocks]}  # fmt: skip

    def p(draw=None, put_back=(), t=0):
        def add(_module, _args, output):
            return output if draw is None else output + torch.nn.functional.pad(
                draw, (0, 0, fact.first, len(fact.ids) - 1 - fact.last))[None]  # fmt: skip

        def put(hooked_module, _args, output):
            hidden = tensor_of(output).clone()
            hidden[0, t] = clean[hooked_module][t]
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        with hooked({embedding: add, **{each: put for each in put_back}}):
            logits = lm.model(input_ids=torch.tensor([fact.ids])).logits[0, -1]
        return float(logits.double().softmax(-1)[fact.answer])

    clean = {}
    with hooked({each: lambda m, _a, output: clean.update({m: tensor_of(output)[0].clone()})
                 for kind in modules.values() for each in kind}):  # fmt: skip
        p_clean = p()
    corrupted = sum(map(p, noise_SsD)) / len(noise_SsD)
    effects = {}
    for kind, its in modules.items():
        rows = []
        for t in range(fact.first, len(fact.ids)):
            row = []
            for layer in range(lm.n_blocks):
                window_of = [layer] if kind == "hidden" else list(range(lm.n_blocks))[
                    max(0, layer - window // 2) : layer + -(-window // 2)]  # fmt: skip
                each = [p(draw, [its[block] for block in window_of], t) for draw in noise_SsD]
                row.append(sum(each) / len(each) - corrupted)
            rows.append(row)
        effects[kind] = rows
    return p_clean, corrupted, effects


def assert_plain(lm, fact):
    noise_SsD = noise(fact, lm.model.get_input_embeddings().weight.shape[1])
    before = n_hooks(lm)
    found = CorruptedRuns(lm, WINDOW).effects(fact, noise_SsD)
    assert n_hooks(lm) == before
    clean, corrupted, effects = plain_effects(lm, fact, noise_SsD, WINDOW)
    assert found.clean == pytest.approx(clean, rel=1e-9) and found.corrupted == pytest.approx(corrupted, rel=1e-9)
    assert set(found.indirect) == set(effects) and abs(clean - corrupted) > 1e-5
    for kind, expected in effects.items():
        assert_close(torch.tensor(found.indirect[kind]), torch.tensor(expected), rtol=1e-7, atol=1e-11)


@several_families
def test_effects_are_those_of_a_plain_double_loop(exact_lm):
    assert_plain(exact_lm, FACT)


@two_families
def test_a_subject_at_the_front_has_no_tokens_before_it(exact_lm):
    assert_plain(exact_lm, AT_THE_FRONT)


@two_families
def test_a_model_whose_blocks_cannot_be_run_alone_is_run_whole(exact_lm, monkeypatch):
    monkeypatch.setattr(module, "can_rerun", lambda lm: False)
    assert_plain(exact_lm, FACT)


@pytest.mark.parametrize("exact_lm", ["llama"], indirect=True)
def test_no_block_below_a_state_that_is_put_back_is_run(exact_lm):
    """Counts the tokens that each block reads: the clean and the corrupted run read all, one row of every run from a
    token on says how blocks are called, and a state put back joins at its own block."""
    n_read = [0] * exact_lm.n_blocks

    def count(module, args, _kwargs):
        n_read[exact_lm.anatomy.blocks.index(module)] += args[0].shape[0] * args[0].shape[1]

    runs = CorruptedRuns(exact_lm, window=1)
    with hooked(before={block: count for block in exact_lm.anatomy.blocks}):
        runs.effects(FACT, noise(FACT, 32))
    tokens = sum(len(FACT.ids) - t for t in range(FACT.first, len(FACT.ids)))
    # at or below block b start, of two draws each: b hidden states, b + 1 MLPs, b + 1 attentions
    assert n_read == [3 * len(FACT.ids) + tokens + 2 * (3 * b + 2) * tokens for b in range(exact_lm.n_blocks)]


@pytest.mark.parametrize("exact_lm", ["llama"], indirect=True)
def test_many_states_are_put_back_in_several_runs(exact_lm, monkeypatch):
    noise_SsD = noise(FACT, 32)
    at_once = CorruptedRuns(exact_lm, WINDOW).effects(FACT, noise_SsD)
    monkeypatch.setattr(module, "TOKENS_AT_ONCE", 50)
    in_parts = CorruptedRuns(exact_lm, WINDOW).effects(FACT, noise_SsD)
    for kind, expected in at_once.indirect.items():
        assert_close(torch.tensor(in_parts.indirect[kind]), torch.tensor(expected), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("layer", "width", "expected"), [(8, 10, range(3, 13)), (0, 10, range(5)),
                                                          (28, 6, range(25, 30)), (4, 5, range(2, 7)),
                                                          (3, 1, range(3, 4))])  # fmt: skip
def test_a_window_is_cut_at_the_ends_as_in_the_papers_code(layer, width, expected):
    assert window_around(layer, width, 30) == expected
