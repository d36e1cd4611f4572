"""Linear weights rounded to few bits, against a plain computation; `replay.after` measures such models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.pytorch_utils import Conv1D

from afteredit.evaluate.inference.held_out import held_out
from afteredit.evaluate.metrics.drift import drift
from afteredit.evaluate.rounded_weights import round_unedited, rounded
from afteredit.launch.command_line import compose
from afteredit.model.lm import LM
from afteredit.run import main
from afteredit.store.checked_lines import Lines


def plainly(W: np.ndarray, bits: int) -> np.ndarray:
    """Each weight goes to the nearest of 2^bits evenly spaced levels between the ends of its group of 64 inputs."""
    result = np.empty_like(W)
    for d, row in enumerate(W):
        for start in range(0, len(row), 64):
            group = row[start : start + 64]
            levels = np.linspace(group.min(), group.max(), 2**bits)
            result[d, start : start + 64] = levels[np.abs(group[:, None] - levels).argmin(1)]
    return result


@pytest.mark.parametrize("bits", [4, 8])
def test_every_weight_goes_to_the_nearest_level_of_its_group(bits):
    torch.manual_seed(0)
    W_DF = torch.randn(5, 150, dtype=torch.float64)  # the last group of a row is short
    W_DF[2] = 0.25
    expected = torch.from_numpy(plainly(W_DF.numpy(), bits))
    torch.testing.assert_close(rounded(W_DF, bits), expected, rtol=1e-12, atol=1e-12)
    assert len(rounded(W_DF, bits)[0, :64].unique()) <= 2**bits
    assert rounded(W_DF.bfloat16(), bits).dtype is torch.bfloat16


def test_the_matrices_of_the_blocks_are_rounded_and_nothing_else(make_lm, family):
    lm, untouched = make_lm(family), dict(make_lm(family).model.named_parameters())
    edited = lm.mlp_out_name(1)
    lm.weights.keep_base([edited])
    round_unedited(lm, 4)
    changed = {name for name, parameter in lm.model.named_parameters() if not torch.equal(parameter, untouched[name])}
    matrices = {f"{name}.weight" for name, module in lm.model.named_modules()
                if isinstance(module, torch.nn.Linear | Conv1D)}  # fmt: skip
    assert changed == {name for name in matrices if "lm_head" not in name} - {edited}
    name = lm.mlp_out_name(0)
    stored = untouched[name].detach()
    W_DF = stored.T if family == "gpt2" else stored
    torch.testing.assert_close(lm.weights.W(name), torch.from_numpy(plainly(W_DF.numpy(), 4)), rtol=1e-5, atol=1e-6)


def test_a_replay_measures_the_rounded_models_beside_each_other(tiny_folder, few_facts, tmp_path):
    runs, measured = tmp_path / "runs", ["held_out_tokens=64", "task=none", "device=cpu"]
    model = f"model.source={tiny_folder}"
    assert main(["model=hf", model, "method.second_moment=identity", "method.layer=1", "method.value_steps=3",
                 "method.contexts_short=0", "method.contexts_long=0", "n_edits=2", "eval_every=2", "tracker=none",
                 few_facts, *measured, f"runs={runs}"]) == 0  # fmt: skip
    (run,) = runs.iterdir()
    (plain,) = run.glob("results-*.jsonl")
    replay = [f"replay.run={run}", model, "replay.at=2", *measured]
    assert main([*replay, "replay.after=int4"]) == 0
    (other,) = set(run.glob("results-*.jsonl")) - {plain}
    rows, rounded_rows = Lines(plain).records, Lines(other).records
    assert [row["weights_sha256"] for row in rows] == [row["weights_sha256"] for row in rounded_rows]
    assert rounded_rows[0]["editing/retained/prob/neighbourhood"] == 1  # the unedited model is rounded alike
    assert main([*replay, f"replay.export={tmp_path}/edited"]) == 0
    for folder, row in ((tiny_folder, rounded_rows[0]), (tmp_path / "edited", rounded_rows[1])):
        assert row["drift/perplexity"] == pytest.approx(perplexity_when_rounded(folder), rel=1e-5)


def perplexity_when_rounded(folder: Path) -> float:
    model = AutoModelForCausalLM.from_pretrained(folder)
    for block in model.model.layers:
        for module in block.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.data = torch.from_numpy(plainly(module.weight.detach().numpy(), 4)).float()
    lm = LM(model, AutoTokenizer.from_pretrained(folder))
    settings = compose(["held_out_tokens=64", "task=none"]).settings
    return drift(lm, held_out(lm, settings))["drift/perplexity"]
