"""Packed matrices give the plain products and gradients, and leave the model as it was."""

import logging

import pytest
import torch
from torch.testing import assert_close

from afteredit.edit.update import LowRank, Update
from afteredit.model import packed_weights as packing
from afteredit.model.rerun import Rerun

ROWS = [[3, 9, 4, 11, 6], [5, 3, 9, 4, 11, 6, 7]]
LASTS = [2, 3]
LAYER = 1


def forwards(lm) -> list:
    return [module for module in lm.model.modules() if "forward" in module.__dict__]


def outcome(lm) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits at every column, and the gradient of their sum of squares to an offset at column 0."""
    rerun = Rerun(lm, ROWS, LASTS, LAYER)
    D, _ = lm.widths(LAYER)
    with lm.packed_weights.in_use(), torch.enable_grad():
        offset_D = torch.linspace(-1, 1, D, dtype=lm.weights.W(lm.mlp_out_name(LAYER)).dtype).requires_grad_()
        logits_BTV = lm.logits(rerun.hidden(offset_D))
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
    assert n_calls > 2 * 2 * 4  # both ways, and at least four matrices in each block after the edited one
    assert not forwards(lm)
    monkeypatch.setattr(packing, "AT_MOST_GIB", 0.0)  # a model too large is left as it is
    plain = outcome(lm)
    assert len(calls) == n_calls
    for one, other in zip(fast, plain, strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))


def test_every_matrix_of_every_block_is_packed(exact_lm):
    """Types alone do not tell: OPT's MLP output matrices have a subclass that shows them to hooks."""
    lm = exact_lm
    lm.model.float()
    with lm.packed_weights.in_use():
        replaced = forwards(lm)
    matrices = [
        m for block in lm.anatomy.blocks for m in block.modules() if getattr(getattr(m, "weight", None), "ndim", 0) == 2
    ]
    assert set(lm.anatomy.mlp_outs) <= set(matrices)
    assert set(replaced) == {*matrices, lm.model.get_output_embeddings()}


def test_a_matrix_that_does_more_than_multiply_is_left_alone(make_lm):
    class Doubling(torch.nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    lm = make_lm("llama")
    lm.mlp_out(1).__class__ = Doubling
    with lm.packed_weights.in_use():
        assert lm.mlp_out(1) not in forwards(lm) and lm.mlp_out(0) in forwards(lm)


def test_where_a_model_is_too_large_the_log_says_so_once(make_lm, monkeypatch, caplog):
    monkeypatch.setattr(packing, "AT_MOST_GIB", 1e-6)
    lm = make_lm("llama")
    with caplog.at_level(logging.INFO, logger="afteredit.model"):
        for _ in range(2):
            with lm.packed_weights.in_use():
                assert not forwards(lm)
    (record,) = caplog.records
    assert "left as they are" in record.message
    caplog.clear()
    with make_lm("llama", dtype=torch.float64).packed_weights.in_use():  # float64 is never packed
        assert not caplog.records


def test_other_types_are_left_alone(make_lm, family, monkeypatch):
    monkeypatch.setattr(packing, "_multiply", None)
    outcome(make_lm(family, dtype=torch.float64))


def test_the_model_is_itself_again_after_a_failure(make_lm):
    lm = make_lm("llama")
    with pytest.raises(KeyboardInterrupt), lm.packed_weights.in_use():
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
        with lm.packed_weights.in_use():
            assert len(forwards(lm)) > 4 * lm.n_blocks
            assert_close(logits(lm), before, rtol=1e-4, atol=1e-5)
        lm.weights.add(edit_of(lm, lm.mlp_out_name(layer)).changes)
        after = logits(lm)
        with lm.packed_weights.in_use():
            assert_close(logits(lm), after, rtol=1e-4, atol=1e-5)
        assert (after - before).abs().max() > 1e-2
    lm.weights.restore()
    with lm.packed_weights.in_use():
        matrices = dict(lm.packed_weights.matrices)
        assert_close(logits(lm), unedited, rtol=1e-4, atol=1e-5)
    with lm.packed_weights.in_use():
        assert dict(lm.packed_weights.matrices) == matrices  # what has not changed is not packed again


def test_a_weight_that_changes_inside_is_an_error(make_lm):
    lm = make_lm("llama")
    with pytest.raises(RuntimeError, match="changed"), lm.packed_weights.in_use():
        lm.weights.add(edit_of(lm, lm.mlp_out_name(1)).changes)
    assert not forwards(lm)
