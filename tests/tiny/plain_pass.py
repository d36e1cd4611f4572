"""Runs a model the plain way: one row, the model's own forward pass, hooks; no padding, no cache, no rerun."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from afteredit.model.hooks import hooked


def _plain_pass(lm, row, layer, at, offset_D=None) -> SimpleNamespace:
    """Returns keys (T, F) of the block's MLP output matrix, its output at `at`, normalised hidden states and logits of
    one row, with `offset_D` added to the MLP output at `at`."""
    parts = {}

    def tap(_module, args, output):
        parts["keys_TF"], parts["value_D"] = args[0][0], output[0, at]
        if offset_D is None:
            return None
        moved = torch.zeros_like(output)
        moved[0, at] = 1
        return output + moved * offset_D

    def final(_module, _args, output):
        parts["hidden_TD"] = output[0]

    with hooked({lm.mlp_out(layer): tap, lm.anatomy.after_blocks: final}):
        parts["logits_TV"] = lm.model(input_ids=torch.tensor([list(row)]), use_cache=False).logits[0]
    return SimpleNamespace(**parts)


def _plain_nll(lm, ids, target, layer=0, at=0, offset_D=None) -> torch.Tensor:
    """Returns the mean nats per token of `target` after `ids`."""
    with torch.no_grad():
        logits_TV = _plain_pass(lm, [*ids, *target], layer, at, offset_D).logits_TV
        logits_TV = logits_TV if logits_TV.dtype == torch.float64 else logits_TV.float()
    log_p_NV = logits_TV[len(ids) - 1 : -1].log_softmax(-1)
    return -log_p_NV[torch.arange(len(target)), torch.tensor(target)].mean()


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Threads gain nothing on tiny tensors, and on a busy machine they wait for each other: minutes, not seconds."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def plain_pass():
    return _plain_pass


@pytest.fixture(scope="session")
def plain_nll():
    return _plain_nll
