"""Models in float64 throughout, where what is the same mathematics is the same to ten digits."""

from __future__ import annotations

import pytest
import torch
from transformers.models.gemma2 import modeling_gemma2
from transformers.models.gpt_neox import modeling_gpt_neox
from transformers.models.gptj import modeling_gptj
from transformers.models.llama import modeling_llama


class _Wide:
    """Stands for `torch` in a modelling file whose float32 steps (norms, attention scores) would hide 1e-9."""

    float32 = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


@pytest.fixture
def float64_throughout(monkeypatch):
    """Takes every float32 step out of the models of EXACT."""
    for module in (modeling_gemma2, modeling_gpt_neox, modeling_gptj, modeling_llama):
        monkeypatch.setattr(module, "torch", _Wide())
    norm = modeling_gemma2.Gemma2RMSNorm
    monkeypatch.setattr(norm, "forward", lambda self, x: self._norm(x) * (1.0 + self.weight))
