"""A model without weights counts the passes that a real one of its shape makes."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from afteredit.commands.plan.counted_lm import CountedBlocks, CountedLM
from afteredit.commands.plan.shape_only import CHARACTERS, cut_by_characters
from afteredit.evaluate.abilities.build import build_tasks
from afteredit.evaluate.inference.kept_blocks import KeptBlocks
from afteredit.evaluate.metrics.editing_success import respond
from afteredit.evaluate.metrics.fluency import write_texts
from afteredit.launch.command_line import compose
from afteredit.tests.tiny.models import tiny_model


@pytest.fixture
def counted(tokenizer):
    with torch.device("meta"):
        lm = CountedLM(tiny_model_without_weights(len(tokenizer)), tokenizer)
    lm.planned_device, lm.vocabulary = torch.device("cpu"), len(tokenizer)
    return lm


def tiny_model_without_weights(vocab: int):
    with torch.device("cpu"):
        return tiny_model("llama", vocab).to("meta")


@contextmanager
def passes_of(lm):
    """Collects (tokens, columns) of every pass, and the rows of logits."""
    passes, rows = [], []
    run_decoder, logits = lm.run_decoder, lm.logits

    def recorded(ids_BT, mask_BT, *rest):
        passes.append((ids_BT.numel(), mask_BT.shape[1]))
        return run_decoder(ids_BT, mask_BT, *rest)

    def counted_rows(hidden):
        rows.append(hidden.shape[:-1].numel())
        return logits(hidden)

    lm.run_decoder, lm.logits = recorded, counted_rows
    try:
        yield passes, rows
    finally:
        lm.run_decoder, lm.logits = run_decoder, logits


def test_editing_success_and_texts_make_the_passes_that_are_counted(make_lm, counted, fact, second_fact):
    lm = make_lm("llama")
    prompts = ["The market of the town", "Bread"]
    with passes_of(lm) as (passes, rows):
        respond(lm, [fact, second_fact])
        write_texts(lm, prompts)
    with counted.counting() as counts:
        respond(counted, [fact, second_fact])
        write_texts(counted, prompts)
    assert [(p.tokens, p.columns) for p in counts.first if p.tokens] == passes
    assert [p.logits for p in counts.first if p.logits] == rows
    assert counts.columns >= max(tokens for tokens, _ in passes) and counts.tokens == max(t for t, _ in passes)


def test_an_ability_makes_the_passes_that_are_counted_and_keeps_as_many_bytes(make_lm, counted):
    x = compose(["task=[nli]", "limit=3", "tracker=none"])
    (built,), (again,) = build_tasks(x.tasks, x.settings), build_tasks(x.tasks, x.settings)
    lm = make_lm("llama", positions=4096)
    lm.weights.keep_base([lm.mlp_out_name(2)])
    kept = KeptBlocks(lm, 1.0)
    with passes_of(lm) as (passes, _):
        built.measure(lm, kept)
    blocks = CountedBlocks(counted, 1.0, 2)
    counted.model.config.max_position_embeddings = 4096
    with counted.counting() as counts:
        again.measure(counted, blocks)
    made = [(p.tokens, p.columns) for p in counts.first if p.tokens]
    assert [one for one in passes if one != (3, 3)] == made  # three tokens: whether the blocks can be run from one up
    assert blocks.n_bytes == kept.n_bytes > 0
    upper = [p.blocks for p in counts.again if p.tokens]
    assert set(upper) == {lm.n_blocks - 2}
    full = CountedBlocks(counted, 1e-9, 2)
    with counted.counting() as counts:
        again.measure(counted, full)
    assert full.n_bytes == 0 and counts.again[-1].blocks in (0, lm.n_blocks)


def test_answers_end_after_as_many_tokens_as_are_told(counted):
    x = compose(["task=[open_qa]", "limit=2", "tracker=none"])
    steps = {}
    counted.model.config.max_position_embeddings = 4096
    for n in (2, float("inf")):
        (built,) = build_tasks(x.tasks, x.settings)
        with counted.counting(n) as counts:
            built.measure(counted, None)
        steps[n] = sum(p.decoding for p in counts.first)
    assert 0 < steps[2] < steps[float("inf")]


def test_tokens_are_estimated_from_characters():
    text = "Bread and fish are sold in the market."
    tokenizer = cut_by_characters([text], 100)
    n_tokens = len(tokenizer(text, add_special_tokens=False).input_ids)
    assert n_tokens == pytest.approx(len(text) / CHARACTERS, rel=0.35)
    pieces = tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False).input_ids)
    assert "".join(pieces) == text and "?" not in pieces
