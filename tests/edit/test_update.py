"""Tests that updates are read back from their file as they were written."""

import json
import math

import pytest
import torch
from safetensors.torch import save_file

from afteredit.edit.update import Dense, LowRank, Update, load_update
from afteredit.store.errors import BadInput


def mixed_update() -> Update:
    torch.manual_seed(0)
    changes = {
        "transformer.h.1.mlp.c_proj.weight": LowRank(torch.randn(6, 2), torch.randn(8, 2)),
        "transformer.h.2.mlp.c_proj.weight": Dense(torch.randn(8, 6).T),
    }
    return Update(changes, {"past_keys": torch.randn(8, 1), "targets": torch.randn(1)}, {"loss": 1.0})


def test_an_update_comes_back_from_its_file(tmp_path):
    update = mixed_update()
    save_file(update.flat(), tmp_path / "u.safetensors")
    loaded = load_update(tmp_path / "u.safetensors")
    assert loaded.changes.keys() == update.changes.keys()
    for name, change in update.changes.items():
        assert type(loaded.changes[name]) is type(change)
        assert loaded.changes[name].tensors().keys() == change.tensors().keys()
        assert all(torch.equal(loaded.changes[name].tensors()[part], t) for part, t in change.tensors().items())
        assert torch.equal(loaded.changes[name].dense(), change.dense())
    assert loaded.adds.keys() == update.adds.keys()
    assert all(torch.equal(loaded.adds[name], tensor) for name, tensor in update.adds.items())


def test_what_is_stored_of_an_update_carries_no_gradient_and_nothing_else(tmp_path):
    left_Dr = torch.randn(6, 1, requires_grad=True)
    flat = Update({"w": LowRank(left_Dr * 2, torch.randn(8, 1))}).flat()
    assert len(flat) == 2
    assert not any(tensor.requires_grad for tensor in flat.values())


@pytest.mark.parametrize("rank", [1, 2, 9])
def test_a_changes_norm_is_that_of_its_matrix(rank):
    torch.manual_seed(rank)
    change = LowRank(torch.randn(6, rank), torch.randn(8, rank))
    assert change.norm() == pytest.approx(float(change.dense().norm()), rel=1e-12)
    assert Dense(change.dense()).norm() == pytest.approx(change.norm(), rel=1e-12)
    assert math.isnan(LowRank(change.left_Dr * torch.nan, change.right_Fr).norm())


def test_a_change_of_rank_one_has_the_bits_of_the_matrix_product():
    torch.manual_seed(0)
    left_Dr, right_Fr = torch.randn(6, 1).double() / 3, torch.randn(8, 1)  # norm_cap.py leaves a factor in float64
    assert torch.equal(LowRank(left_Dr, right_Fr).dense(), left_Dr @ right_Fr.double().T)


def test_a_change_is_added_up_in_float64():
    change = LowRank(torch.ones(1, 2), torch.tensor([[1e8, 1.0]]))
    assert change.dense().dtype == Dense(torch.ones(2, 2)).dense().dtype == torch.float64
    assert float(change.dense()) == 1e8 + 1


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("at", ["left_Dr", "right_Fr", "delta_DF"])
def test_one_number_that_is_not_finite_is_seen(broken, at):
    update = mixed_update()
    assert update.is_finite()
    (tensor,) = [c.tensors()[at] for c in update.changes.values() if at in c.tensors()]
    tensor[0, 0] = broken
    assert not update.is_finite()


def raw(header: dict, n_bytes: int) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(n_bytes)


def entry(shape: list, offsets: list, dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


LEFT, RIGHT = "changes|w|LowRank|left_Dr", "changes|w|LowRank|right_Fr"
ABSURD = {
    "overlapping": raw({LEFT: entry([2, 1], [0, 8]), RIGHT: entry([2, 1], [4, 12])}, 12),
    "negative_offset": raw({LEFT: entry([2, 1], [-8, 0])}, 8),
    "negative_shape": raw({LEFT: entry([-2, 1], [0, 8])}, 8),
    "past_the_end": raw({LEFT: entry([2, 1], [0, 800])}, 8),
    "huge": raw({LEFT: entry([2**40, 2**40], [0, 8])}, 8),
    "other_size": raw({LEFT: entry([3, 1], [0, 8])}, 8),
    "unknown_dtype": raw({LEFT: entry([2, 1], [0, 8], "F33")}, 8),
    "one_factor": raw({LEFT: entry([2, 1], [0, 8])}, 8),
    "unknown_kind": raw({"changes|w|Odd|x": entry([2, 1], [0, 8])}, 8),
    "unknown_name": raw({"w": entry([2, 1], [0, 8])}, 8),
    "header_past_the_end": (2**60).to_bytes(8, "little") + b"{}",
    "header_of_none": b"\x00" * 8,
    "empty": b"",
}


@pytest.mark.parametrize("name", ABSURD)
def test_a_file_that_holds_no_update_is_refused(tmp_path, name):
    path = tmp_path / "u.safetensors"
    path.write_bytes(ABSURD[name])
    with pytest.raises(BadInput, match="u.safetensors holds no update"):
        load_update(path)


@pytest.mark.parametrize("shapes", [([4], [6, 1]), ([4, 1, 1], [6, 1]), ([], []), ([4, 2], [6, 1])])
def test_factors_that_make_no_matrix_have_the_shape_of_none(shapes):
    left, right = (torch.zeros(shape) for shape in shapes)
    assert LowRank(left, right).shape != (4, 6) and len(LowRank(left, right).shape) != 2
