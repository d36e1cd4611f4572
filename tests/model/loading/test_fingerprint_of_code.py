"""A model folder's own code is in the fingerprint: what it computes from one config and one set of weights."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from transformers import dynamic_module_utils

from afteredit.model.lm import LM
from afteredit.model.loading.model_source import ModelSource

CODE = """
from transformers import LlamaForCausalLM

class Own(LlamaForCausalLM):
    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = SCALE * output.logits
        return output
"""


@pytest.fixture
def load(tiny_folder, tmp_path, monkeypatch):
    """load(name, scale): the tiny model, in a folder of that name, with code that multiplies its logits."""
    modules = tmp_path / "modules"
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(modules))
    monkeypatch.setattr(sys, "path", [*sys.path])
    config = json.loads((tiny_folder / "config.json").read_text("utf-8"))
    config["auto_map"] = {"AutoModelForCausalLM": "own.Own"}

    def loaded(name: str, scale: float) -> LM:
        folder = Path(shutil.copytree(tiny_folder, tmp_path / name))
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        (folder / "own.py").write_text(CODE.replace("SCALE", str(scale)), encoding="utf-8")
        return ModelSource("hf", str(folder), trust_remote_code=True).load("cpu", "float32")

    yield loaded
    for name in [name for name in sys.modules if name.startswith("transformers_modules")]:
        del sys.modules[name]


@torch.no_grad()
def test_other_code_in_the_folder_is_another_model_and_the_same_code_elsewhere_is_not(load):
    one, same, other = load("one", 2.0), load("same", 2.0), load("other", 3.0)
    ids = torch.tensor([[5, 17, 300]])
    torch.testing.assert_close(2 * other.model(ids).logits, 3 * one.model(ids).logits)
    assert one.fingerprint == same.fingerprint != other.fingerprint
