"""Packed matrices give the plain products and gradients, and leave the model as it was."""

import logging

import pytest
import torch
from torch.testing import assert_close

from afteredit.edit.update import LowRank, Update
from afteredit.model import packed_weights as packing
from afteredit.model.packed_weights import packed
from afteredit.model.rerun import Replay

ROWS = [[3, 9, 4, 11, 6], [5, 3, 9, 4, 11, 6, 7]]
LASTS = [2, 3]
LAYER = 1


def forwards(lm) -> list:
    return [module for module in lm.model.modules() if "forward" in module.__dict__]


def outcome(lm) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits at every column, and the gradient of their sum of squares to an offset at column 0."""
    replay = Replay(lm, ROWS, LASTS, LAYER)
    D, _ = lm.widths(LAYER)
    with packed(lm), torch.enable_grad():
        offset_D = torch.linspace(-1, 1, D, dtype=lm.weights.W(lm.mlp_out_name(LAYER)).dtype).requires_grad_()
        logits_BTV = lm.logits(replay.hidden(offset_D))
        (logits_BTV**2).mean().backward()
    return logits_BTV.detach(), offset_D.grad


def test_products_and_gradients_are_the_plain_ones(exact_lm, monkeypatch):
    lm = exact_lm
    lm.model.float()
    calls = []
    multiply = packing._multiply
    monkeypatch.setattr(packing, "_multiply", lambda *given: calls.append(None) or multiply(*given))
    fast = outcome(lm)
    n_calls = len(calls)
    assert n_calls > 2 * 2 * 4  # there and back, and at least four matrices in each block behind the first
    assert not forwards(lm)
    monkeypatch.setattr(packing, "AT_MOST_GIB", 0.0)  # too large a model: as it is
    plain = outcome(lm)
    assert len(calls) == n_calls
    for one, other in zip(fast, plain, strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))


def test_every_matrix_of_every_block_is_packed(exact_lm):
    """Not only those of a type's own name: OPT's MLP output matrices are shown to hooks by a subclass."""
    lm = exact_lm
    lm.model.float()
    with packed(lm):
        standing_in = forwards(lm)
    matrices = [
        m for block in lm.anatomy.blocks for m in block.modules() if getattr(getattr(m, "weight", None), "ndim", 0) == 2
    ]
    assert set(lm.anatomy.mlp_outs) <= set(matrices)
    assert set(standing_in) == {*matrices, lm.model.get_output_embeddings()}


def test_a_matrix_that_does_more_than_multiply_is_left_alone(make_lm):
    class Doubling(torch.nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    lm = make_lm("llama")
    lm.mlp_out(1).__class__ = Doubling
    with packed(lm):
        assert lm.mlp_out(1) not in forwards(lm) and lm.mlp_out(0) in forwards(lm)


def test_of_a_model_too_large_the_log_says_so_once(make_lm, monkeypatch, caplog):
    monkeypatch.setattr(packing, "AT_MOST_GIB", 1e-6)
    lm = make_lm("llama")
    with caplog.at_level(logging.INFO, logger="afteredit.model"):
        for _ in range(2):
            with packed(lm):
                assert not forwards(lm)
    (record,) = caplog.records
    assert "left as they are" in record.message
    caplog.clear()
    with packed(make_lm("llama", dtype=torch.float64)):  # which nothing packs, of any size
        assert not caplog.records


def test_other_types_are_left_alone(make_lm, family, monkeypatch):
    monkeypatch.setattr(packing, "_multiply", None)
    outcome(make_lm(family, dtype=torch.float64))


def test_the_model_is_itself_again_after_a_failure(make_lm):
    lm = make_lm("llama")
    with pytest.raises(KeyboardInterrupt), packed(lm):
        assert forwards(lm)
        raise KeyboardInterrupt
    assert not forwards(lm)


def edit_of(lm, name: str) -> Update:
    D, F = lm.weights.W(name).shape
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(n, 1, generator=generator, dtype=torch.float64) for n in (D, F))
    return Update({name: LowRank(0.1 * left, right)})


@torch.no_grad()
def logits(lm) -> torch.Tensor:
    ids_BT = torch.tensor([[3, 9, 4, 11, 6, 5, 7]])
    return lm.logits(lm.forward(ids_BT, torch.ones_like(ids_BT)))


def test_every_edit_is_seen(exact_lm):
    lm = exact_lm
    lm.model.float()
    unedited = logits(lm)
    for layer in (2, 1):
        before = logits(lm)
        with packed(lm):
            assert len(forwards(lm)) > 4 * lm.n_blocks
            assert_close(logits(lm), before, rtol=1e-4, atol=1e-5)
        lm.weights.add(edit_of(lm, lm.mlp_out_name(layer)).changes)
        after = logits(lm)
        with packed(lm):
            assert_close(logits(lm), after, rtol=1e-4, atol=1e-5)
        assert (after - before).abs().max() > 1e-2
    lm.weights.restore()
    with packed(lm):
        packings = dict(packing._kept)
        assert_close(logits(lm), unedited, rtol=1e-4, atol=1e-5)
    with packed(lm):
        assert dict(packing._kept) == packings  # what has not changed is not packed again


def test_a_weight_that_changes_inside_is_an_error(make_lm):
    lm = make_lm("llama")
    with pytest.raises(RuntimeError, match="changed"), packed(lm):
        lm.weights.add(edit_of(lm, lm.mlp_out_name(1)).changes)
    assert not forwards(lm)
