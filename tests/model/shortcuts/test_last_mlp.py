"""The last block's MLP runs only at the tokens that are read, or everywhere where it cannot."""

import logging

import pytest
import torch
from torch.testing import assert_close

from afteredit.model.hooks import hooked
from afteredit.model.lm import LM
from afteredit.model.rerun import Rerun

IDS, LAYER = [5, 9, 7, 30, 11, 8], 1

pytestmark = pytest.mark.usefixtures("float64_throughout")


def offsets(lm, n_rows: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(n_rows, lm.widths(LAYER)[0], generator=generator, dtype=torch.float64)


def test_it_runs_only_at_the_places_or_the_log_says_once_that_it_does_not(exact_lm, caplog):
    shapes = []
    with caplog.at_level(logging.INFO, logger="afteredit.model"):
        rerun = Rerun(exact_lm, [IDS, IDS], [1, 1], LAYER)
        with hooked({exact_lm.mlp_out(3): lambda _m, args, _output: shapes.append(args[0].shape[:2])}):
            rerun.hidden(offsets(exact_lm, 2), places=(torch.tensor([0, 1, 1]), torch.tensor([3, 2, 3])))
    is_the_block_itself = exact_lm.model.config.model_type == "opt"
    assert shapes[-1] == ((2, len(IDS) - 1) if is_the_block_itself else (1, 3))  # the last of a probe and this run
    assert caplog.text.count("MLP cannot be run on some tokens alone") == is_the_block_itself


class Wrapped(torch.nn.Module):
    """Calls an MLP as some architectures do: by name, or for the first of its outputs."""

    def __init__(self, mlp, by_name: bool):
        super().__init__()
        self.mlp, self.by_name = mlp, by_name

    def forward(self, x_BTD):
        return self.mlp(x=x_BTD) if self.by_name else self.mlp(x_BTD)[0]


@pytest.mark.parametrize("by_name", [True, False], ids=["is called by name", "returns more"])
def test_an_mlp_that_cannot_be_run_at_places_runs_everywhere_and_the_log_says_so_once(
    make_lm, by_name, caplog, monkeypatch
):
    lm = make_lm("llama", dtype=torch.float64)
    mlp, block, places = lm.anatomy.mlps[-1], lm.anatomy.blocks[-1], (torch.tensor([0, 0]), torch.tensor([1, 3]))
    expected_ND = Rerun(lm, [IDS], [1], LAYER).hidden(offsets(lm, 1))[places]
    lm, forward = LM(lm.model, lm.tokenizer), mlp.forward  # to be probed anew
    if not by_name:
        monkeypatch.setattr(mlp, "forward", lambda x: (forward(x), None))
    block.mlp = Wrapped(mlp, by_name)
    with caplog.at_level(logging.INFO, logger="afteredit.model"):
        for _ in range(2):
            hidden_ND = Rerun(lm, [IDS], [1], LAYER).hidden(offsets(lm, 1), places=places)
    assert_close(hidden_ND, expected_ND, rtol=1e-9, atol=1e-9)
    assert caplog.text.count("MLP cannot be run on some tokens alone") == 1
