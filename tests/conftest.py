"""Fixtures of all tests: tiny models of every family (tests/tiny), and two facts."""

from __future__ import annotations

import gc
import json
import logging
import os
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import PreTrainedTokenizerFast

from afteredit.analysis.tables import run_end
from afteredit.edit.request import EditRequest
from afteredit.evaluate.metrics import fluency
from afteredit.model.lm import LM
from afteredit.store.progress.work import watch_by
from afteredit.tests.tiny.architectures import architecture  # noqa: F401
from afteredit.tests.tiny.float64 import float64_throughout  # noqa: F401
from afteredit.tests.tiny.kept_config_files import keep_config_files
from afteredit.tests.tiny.models import EXACT, FAMILIES, exact_model, save_llama, tiny_model
from afteredit.tests.tiny.plain_pass import one_thread, plain_nll, plain_pass  # noqa: F401
from afteredit.tests.tiny.tokenizers import byte_level

gc.set_threshold(10_000)
keep_config_files()
torch.set_num_threads(1)  # tiny models: threads only wait for each other
os.environ["OMP_NUM_THREADS"] = "1"  # in the processes that tests start, too


def pytest_collection_modifyitems(items):
    """Puts whole runs first: they take longest, and two processes end together if short files come last."""
    items.sort(key=lambda item: "whole" not in item.path.parts)


def pytest_collection_finish():
    """Spares the tests the search for garbage among all that imports have made, a quarter of a composition's time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def log_as_imported():
    """Gives each test the log as it is before any run, which sets up its process's log and watches what is done."""
    log = logging.getLogger("afteredit")
    log.setLevel(logging.NOTSET)
    log.handlers, log.propagate = [], True
    watch_by(nullcontext)


@pytest.fixture(autouse=True)
def one_grey_dot_for_curves(monkeypatch):
    """Spares a test's runs the curves at their end, a fifth of a tiny run's time.  Runs in processes of their own, and
    those of fixtures of a module, draw them."""

    def dot(rows, chance, path: Path, title: str) -> Path:
        Image.new("L", (1, 1)).save(path)
        return path

    monkeypatch.setattr(run_end, "draw_curves", dot)


@pytest.fixture(autouse=True)
def short_texts_for_fluency(monkeypatch):
    """Spares a test's runs most of the text that fluency is measured on, an eighth of a tiny run's time.  Runs in
    processes of their own write all of it."""
    monkeypatch.setattr(fluency, "N_TOKENS", 8)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return byte_level()


@pytest.fixture(scope="session")
def save_tiny_llama(tokenizer):
    """save_tiny_llama(folder): saves a random Llama that a run can load from there."""
    return lambda folder: save_llama(folder, tokenizer)


@pytest.fixture(scope="session")
def few_facts(tmp_path_factory) -> str:
    """The override of a run on six facts, of which one is whole: it is written about, and has all its paraphrases and
    neighbours.  What the unedited model says of all twenty takes a third of a tiny run's time."""
    lines = (Path(__file__).parents[1] / "data" / "facts.jsonl").read_text(encoding="utf-8").splitlines()[:6]
    first, *others = (json.loads(line) for line in lines)
    for fact in others:
        del fact["generation_prompts"]
        for field, n in {"paraphrases": 1, "neighbourhood": 2, "neighbourhood_targets": 2}.items():
            fact[field] = fact[field][:n]
    path = tmp_path_factory.mktemp("facts") / "few.jsonl"
    path.write_text("".join(json.dumps(fact) + "\n" for fact in (first, *others)), encoding="utf-8")
    return f"edits.file={path}"


@pytest.fixture(params=FAMILIES)
def family(request) -> str:
    return request.param


@pytest.fixture
def make_lm(tokenizer):
    """make_lm(family, start_token=None, dtype=torch.float32, positions=256) -> LM."""

    def make(
        family: str, start_token: str | None = None, dtype: torch.dtype = torch.float32, positions: int = 256
    ) -> LM:
        return LM(tiny_model(family, len(tokenizer), dtype, positions), tokenizer, start_token=start_token)

    return make


@pytest.fixture(params=list(EXACT))
def exact_lm(request, tokenizer) -> LM:
    """A float64 model."""
    return LM(exact_model(request.param, len(tokenizer)), tokenizer)


@pytest.fixture
def tiny_folder(tmp_path, tokenizer) -> Path:
    """The folder of a tiny Llama, saved as `model=hf model.source=<this>` loads it."""
    folder = tmp_path / "tiny"
    tiny_model("llama", len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def fact() -> EditRequest:
    return EditRequest(
        id="f1",
        subject="Joe DiMaggio",
        prompt="The sport that brought {} to fame is",
        target_new="boxing",
        target_true="baseball",
        relation="sport",
        paraphrases=("Young athletes who look up to Joe DiMaggio dream of a future in",),
        neighbourhood=("The trophies won by Barry Bonds were all awarded in", "Hank Aaron played"),
        neighbourhood_answers=("baseball", "baseball"),
    )


@pytest.fixture
def second_fact() -> EditRequest:
    """A fact about a subject of another length, at the front of its prompt."""
    return EditRequest(id="f2", subject="The Great Wall", prompt="{} is located in", target_new="Italy",
                       target_true="China", relation="country")  # fmt: skip
