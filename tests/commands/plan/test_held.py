"""What a plan says that is held, and the keys that it names where there is not room enough."""

from __future__ import annotations

import pytest
import torch

from afteredit.commands.plan.held import Held, _remedies
from afteredit.launch.command_line import compose
from afteredit.model.costs.work import activations

GIB = 2.0**30
ALWAYS = {"weights": 4 * GIB, "blocks below the lowest edited one, kept": 1.5 * GIB}
UPDATING = {"preparing": 1 * GIB, "updating": 8 * GIB, "measuring": 3 * GIB}
MEASURING = {"preparing": 1 * GIB, "updating": 2 * GIB, "measuring": 3 * GIB}
SHARDED = "model.device_map=auto, over several devices"


@pytest.mark.parametrize(("overrides", "always", "phases", "named"), [
    (["batch_size=4", "eval_every=4", "n_edits=8", "method=memit"], ALWAYS, UPDATING,
     ["speed.together=1 (7.0 GiB less)", "dtype=bfloat16 (2.0 GiB less)", "speed.cache_gib=0 (1.5 GiB less)"]),
    (["setting=single", "speed.together=4"], ALWAYS, UPDATING,
     ["speed.together=1 (6.0 GiB less)", "dtype=bfloat16 (2.0 GiB less)", "speed.cache_gib=0 (1.5 GiB less)"]),
    ([], ALWAYS, UPDATING, ["dtype=bfloat16 (2.0 GiB less)", "speed.cache_gib=0 (1.5 GiB less)"]),  # one at a time
    (["batch_size=4", "eval_every=4", "n_edits=8", "method=memit"], ALWAYS, MEASURING,  # not while updating
     ["dtype=bfloat16 (2.0 GiB less)", "speed.cache_gib=0 (1.5 GiB less)"]),
    (["dtype=bfloat16"], ALWAYS, MEASURING, ["speed.cache_gib=0 (1.5 GiB less)"]),
    ([], {"weights": 0.1 * GIB, "blocks below the lowest edited one, kept": 0.01 * GIB}, MEASURING, []),  # too little
])  # fmt: skip
def test_keys_that_make_it_less_are_named_with_what_they_save_the_most_first(overrides, always, phases, named):
    assert _remedies(compose([*overrides, "tracker=none"]), always, phases) == [*named, SHARDED]


def test_of_what_is_held_for_a_while_the_most_counts():
    held = Held({"device": ALWAYS, "cpu": {"the program": GIB}}, {"device": UPDATING},
                {"device": 12 * GIB, "cpu": 2 * GIB}, [])  # fmt: skip
    assert held.peak("device") == (4 + 1.5 + 8) * GIB and held.peak("cpu") == GIB
    assert held.lacking() == {"device": 1.5 * GIB}


def test_a_backward_pass_keeps_no_more_bytes_than_are_said_and_more_than_half_of_them(make_lm):
    """What PyTorch saves of the blocks above, counted once each, without weights."""
    lm, saved = make_lm("llama"), {}
    weights = {parameter.data_ptr() for parameter in lm.model.parameters()}
    ids_BT = torch.ones(8, 16, dtype=torch.long)
    hidden_BTD = torch.randn(8, 16, lm.widths(0)[0], requires_grad=True)

    def keep(tensor):
        if tensor.data_ptr() not in weights:
            saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = lm.forward_from(1, hidden_BTD, ids_BT, torch.ones_like(ids_BT), None, 0)
    n_bytes = sum(tensor.untyped_storage().nbytes() for tensor in saved.values())
    assert out.requires_grad and n_bytes < activations(lm, ids_BT.numel(), lm.n_blocks - 1) < 2 * n_bytes
