"""Tests every file of conf/model at its published size on the meta device: shapes only, no weights, no network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from transformers import AutoModelForCausalLM

from afteredit.commands.plan.shape_only import config_of
from afteredit.launch.command_line import compose
from afteredit.launch.experiment import Experiment
from afteredit.model.lm import LM

CONF = Path(__file__).resolve().parents[2] / "conf"
PRESETS = sorted({path.stem for path in (CONF / "model").glob("*.yaml")} - {"base", "hf"})  # hf takes any model
UNTUNED = {"gpt2", "llama3.2-1b", "olmo2-1b", "qwen2.5-0.5b", "qwen3-0.6b", "smollm2-360m"}
METHODS = sorted(path.stem for path in (CONF / "method").glob("*.yaml"))


def typed(*overrides: str) -> Experiment:
    return compose([*overrides, "task=none"])  # abilities only cost time here


@pytest.fixture(scope="module")
def sized(tokenizer):
    """sized(name) -> LM of the preset's published shape, without weights; built once."""
    built: dict[str, LM] = {}

    def make(name: str) -> LM:
        if name not in built:
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(config_of(typed(f"model={name}").model.shape))
                built[name] = LM(model, tokenizer)
        return built[name]

    return make


def tuned_layers(edit: dict[str, dict[str, Any]]) -> Iterator[tuple[str, int]]:
    """Yields (method, block) for every block that a model's `edit` names."""
    for method, keys in edit.items():
        for layer in [keys.get("layer"), *(keys.get("layers") or [])]:
            if layer is not None:
                yield method, layer


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_finds_its_matrices_at_full_size(name, sized):
    """The authors' count of parameters would show a slip in any other number of the shape."""
    lm, shape = sized(name), typed(f"model={name}").model.shape
    count = sum(parameter.numel() for parameter in lm.model.parameters())
    assert count / 1e9 == pytest.approx(shape["billions"], rel=0.01)
    assert [lm.widths(layer) for layer in range(lm.n_blocks)] == [(shape["width"], shape["inner"])] * shape["blocks"]


@pytest.mark.parametrize("name", PRESETS)
def test_a_presets_tuned_blocks_exist_and_ascend(name, sized):
    edit = typed(f"model={name}").model.edit
    tuned = list(tuned_layers(edit))
    assert bool(tuned) == (name not in UNTUNED)  # blocks are named only where they were measured or published
    for method, layer in tuned:
        assert sized(name).widths(layer), method  # refused with the blocks there are, if it is none of them
    for method, keys in edit.items():
        layers = keys.get("layers") or []
        assert layers == sorted(set(layers)), method


@pytest.mark.parametrize("method", METHODS)
def test_a_methods_own_rule_chooses_blocks_that_every_preset_has(method, sized):
    """This holds where a model's file names no blocks."""
    untuned = typed("model=hf", "model.source=x", f"method={method}").method
    for name in PRESETS:
        names = untuned.edited(sized(name))
        assert names and set(names) <= set(sized(name).anatomy.mlp_out_names), name


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_tunes_only_what_base_knows(name):
    """A wrong key under `edit` would be read by nobody."""
    preset, base = (OmegaConf.to_container(OmegaConf.load(CONF / "model" / f"{n}.yaml")) for n in (name, "base"))
    for method, keys in preset.get("edit", {}).items():
        assert set(keys) <= set(base["edit"][method]), method


def test_a_preset_overrides_what_it_names_and_keeps_the_rest_of_base():
    gptj = typed("model=gptj", "method=alphaedit").method
    assert (gptj.layers, gptj.value_lr, gptj.ridge) == ([3, 4, 5, 6, 7, 8], 0.5, 10.0)
    xl = typed("model=gpt2-xl", "method=memit").method
    assert (xl.second_moment_weight, xl.value_steps, xl.max_offset) == (20000.0, 20, 0.75)


def test_the_page_of_models_has_a_row_of_memory_for_every_preset():
    """`make memory` writes it.  The weights are the authors' count of parameters, of two bytes each."""
    page = (CONF.parent / "docs" / "models.md").read_text(encoding="utf-8")
    _, table = page.split("<!-- plan: written by make memory -->")
    rows = [line.strip("| ").split(" | ") for line in table.split("<!-- /plan -->")[0].strip().splitlines()[2:]]
    assert [row[0] for row in rows] == PRESETS
    for name, weights, *pairs in rows:
        billions = typed(f"model={name}").model.shape["billions"]
        assert float(weights) == pytest.approx(billions * 2e9 / 2**30, rel=0.05), name  # of two digits
        assert len(pairs) == 4 and all(float(gib) > 0 for pair in pairs for gib in pair.split(" / ")), name
