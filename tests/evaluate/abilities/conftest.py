"""What several tests of abilities look at."""

from __future__ import annotations

import pytest

from afteredit.evaluate.abilities.lm_eval_model import LmEvalModel


@pytest.fixture
def separately(monkeypatch) -> list[int]:
    """Collects the numbers of requests that are scored in passes of their own."""
    counts: list[int] = []
    original = LmEvalModel._loglikelihood_tokens

    def counting(self, requests, **kwargs):
        counts.append(len(requests))
        return original(self, requests, **kwargs)

    monkeypatch.setattr(LmEvalModel, "_loglikelihood_tokens", counting)
    return counts
