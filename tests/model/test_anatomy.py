"""The parts of a model are found from its structure, in architectures that nobody listed."""

import pytest
import torch
from torch.testing import assert_close

from afteredit.model.anatomy import find_anatomy
from afteredit.model.lm import LM
from afteredit.model.tensors import pad
from afteredit.model.weights import matrix_shape


@pytest.mark.parametrize("inner", [48, 32], ids=["wider", "square"])
def test_every_block_has_its_mlp_output_matrix(architecture, inner):
    model = architecture.build(64, inner)
    anatomy = find_anatomy(model)
    assert anatomy.mlp_out_names == [architecture.mlp_out.format(block) for block in (0, 1)]
    assert [matrix_shape(module) for module in anatomy.mlp_outs] == [(32, inner)] * 2
    for name, module in zip(anatomy.mlp_out_names, anatomy.mlp_outs, strict=True):
        assert model.get_parameter(name) is module.weight


def test_hooks_on_the_matrix_see_rows_and_positions(architecture):
    """Whatever shape the block gives it (OPT's: rows and positions in one); and the model answers as before."""
    model, ids_BT = architecture.build(64).eval(), torch.arange(6).view(2, 3)
    before = model(input_ids=ids_BT).logits
    module, seen = find_anatomy(model).mlp_outs[1], []
    module.register_forward_hook(lambda _m, args, output: seen.append((*args[0].shape, *output.shape)))
    assert torch.equal(model(input_ids=ids_BT).logits, before)
    assert seen == [(2, 3, 48, 2, 3, 32)]
    assert module(torch.ones(5, 48)).shape == (5, 32)


def test_the_model_runs_as_itself_whatever_the_padding(architecture, tokenizer):
    """Also passes LM's own check that its logits are those of final norm, head and soft cap."""
    lm = LM(architecture.build(len(tokenizer)), tokenizer)
    rows = [[5, 6, 7, 8, 9], [11, 12, 13]]
    for side in ("left", "right"):
        ids_BT, mask_BT = pad(rows, side)
        logits_BTV = lm.logits(lm.forward(ids_BT, mask_BT))
        for row, mask_T, logits_TV in zip(rows, mask_BT, logits_BTV, strict=True):
            own_TV = lm.model(input_ids=torch.tensor([row])).logits[0].float()
            assert_close(logits_TV[mask_T.bool()], own_TV, rtol=1e-4, atol=1e-4)
