"""Packed matrices give the plain products and gradients, and leave the model as it was."""

import pytest
import torch
from torch.testing import assert_close

from afteredit.edit import packed as packing
from afteredit.edit.packed import PackedUnedited, packed
from afteredit.edit.prefix import Replay
from afteredit.edit.update import LowRank, Update

ROWS = [[3, 9, 4, 11, 6], [5, 3, 9, 4, 11, 6, 7]]
LASTS = [2, 3]
LAYER = 1


def forwards(lm) -> list:
    return [module for module in lm.model.modules() if "forward" in module.__dict__]


def outcome(lm) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits at every column, and the gradient of their sum of squares to an offset at column 0."""
    replay = Replay(lm, ROWS, LASTS, LAYER)
    D, _ = lm.widths(LAYER)
    with packed(lm, LAYER, replay.n_tokens), torch.enable_grad():
        offset_D = torch.linspace(-1, 1, D, dtype=lm.W(lm.mlp_out_name(LAYER)).dtype).requires_grad_()
        logits_BTV = lm.logits(replay.hidden(offset_D))
        (logits_BTV**2).mean().backward()
    return logits_BTV.detach(), offset_D.grad


def test_products_and_gradients_are_the_plain_ones(make_lm, family, monkeypatch):
    lm = make_lm(family)
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
        assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_other_types_are_left_alone(make_lm, family, monkeypatch):
    monkeypatch.setattr(packing, "_multiply", None)
    outcome(make_lm(family, dtype=torch.float64))


def test_the_model_is_itself_again_after_a_failure(make_lm):
    lm = make_lm("llama")
    with pytest.raises(KeyboardInterrupt), packed(lm, 0, 4):
        assert forwards(lm)
        raise KeyboardInterrupt
    assert not forwards(lm)


def edit_of(lm, name: str) -> Update:
    D, F = lm.W(name).shape
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(n, 1, generator=generator, dtype=torch.float64) for n in (D, F))
    return Update({name: LowRank(0.1 * left, right)})


@torch.no_grad()
def logits(lm) -> torch.Tensor:
    ids_BT = torch.tensor([[3, 9, 4, 11, 6, 5, 7]])
    return lm.logits(lm.forward(ids_BT, torch.ones_like(ids_BT)))


def test_measuring_with_packed_matrices_sees_every_edit(make_lm, family):
    lm = make_lm(family)
    unedited = PackedUnedited(lm)
    for layer in (2, 1):  # the second edits a block that was unedited when the matrices were packed
        before = logits(lm)
        with unedited.used():
            assert len(forwards(lm)) > 3 * lm.n_blocks  # GPT-2 has three matrices in a block besides, and the head
            assert_close(logits(lm), before, rtol=1e-4, atol=1e-5)
            lm.apply(edit_of(lm, lm.mlp_out_name(layer)))
            inside = logits(lm)
        assert not forwards(lm)
        assert_close(logits(lm), inside, rtol=1e-4, atol=1e-5)
        assert (inside - before).abs().max() > 1e-2


def test_an_unedited_model_measures_to_the_same_bits_whichever_blocks_are_edited(make_lm):
    def seen(layers) -> torch.Tensor:
        lm = make_lm("llama")
        lm.keep_base(layers)
        with PackedUnedited(lm).used():
            return logits(lm)

    assert torch.equal(seen([1]), seen([0, 2]))


def test_nothing_is_packed_where_another_matrix_is_edited(make_lm):
    lm = make_lm("llama")
    lm.base["model.layers.0.self_attn.q_proj.weight"] = torch.zeros(1)
    with PackedUnedited(lm).used():
        assert not forwards(lm)
