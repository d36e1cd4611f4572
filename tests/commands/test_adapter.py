"""Edits taken home: an adapter that the real peft loads onto the unedited model, and whole models with their card."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from afteredit.commands.export import export_model
from afteredit.edit.constraints.prune import Prune
from afteredit.model.loading import model_source
from afteredit.run import main
from afteredit.tests.tiny.models import tiny_model

peft = pytest.importorskip("peft")  # of requirements-dev.lock
METHODS = {"memit": ("method=memit", "method.layers=[0,1]", "method.value_steps=4", "method.contexts=2"),
           "ft": ("method=ft", "method.layers=[1]", "method.steps=2")}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("tiny")
    for family in ("llama", "gpt2"):  # gpt2 stores its matrices transposed
        tiny_model(family, len(tokenizer)).save_pretrained(folder / family)
        tokenizer.save_pretrained(folder / family)
    (folder / "text.txt").write_text("The old town has a market, and people come to buy fish and bread.\n" * 30)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AFTEREDIT_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="module")
def made(place, few_facts):
    """made(family, method, …) -> the directory of a run of three edits, made once."""
    known: dict[tuple, Path] = {}

    def make(family: str, method: str, *overrides: str) -> Path:
        key = (family, method, *overrides)
        if key not in known:
            text = (f"method.second_moment_text={place}/text.txt", "method.tokens_per_key_dim=2")
            runs = place / f"runs{len(known)}"
            assert main(["model=hf", f"model.source={place}/{family}", *METHODS[method], "n_edits=3", "eval_every=3",
                         *(text if method == "memit" else ()), "task=none", "held_out_tokens=64", "tracker=none",
                         "device=cpu", few_facts, *overrides, f"runs={runs}"]) == 0  # fmt: skip
            (known[key],) = runs.iterdir()
        return known[key]

    return make


def export(run: Path, place: Path, target: Path, *overrides: str, rc: int = 0) -> Path:
    family = "gpt2" if f"source: {place}/gpt2" in (run / "config.yaml").read_text() else "llama"
    assert main([f"replay.run={run}", "replay.at=3", f"replay.export={target}", f"model.source={place}/{family}",
                 "held_out_tokens=64", "device=cpu", *overrides]) == rc  # fmt: skip
    return target


def logits(model) -> torch.Tensor:
    torch.manual_seed(0)
    return model(torch.randint(3, 250, (2, 12))).logits


def with_adapter(place: Path, family: str, adapter: Path):
    return peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(place / family), adapter)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_peft_gives_the_logits_of_the_edited_model(made, place, tmp_path, family):
    run = made(family, "memit")
    whole = AutoModelForCausalLM.from_pretrained(export(run, place, tmp_path / "whole"))
    adapter = export(run, place, tmp_path / "adapter", "replay.format=adapter")
    unedited, edited = logits(AutoModelForCausalLM.from_pretrained(place / family)), logits(whole)
    assert not torch.allclose(unedited, edited, atol=1e-3)
    torch.testing.assert_close(logits(with_adapter(place, family, adapter)), edited, rtol=1e-4, atol=1e-5)
    earlier = export(run, place, tmp_path / "earlier", "replay.format=adapter", "replay.at=1")
    config = json.loads((earlier / "adapter_config.json").read_text())
    assert set(config["rank_pattern"].values()) == {1} and len(config["target_modules"]) == 2
    assert not torch.allclose(logits(with_adapter(place, family, earlier)), edited, atol=1e-3)


def changes(place: Path, family: str, whole: Path) -> dict[str, np.ndarray]:
    base, edited = (AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (place / family, whole))
    deltas = {name: (edited[name].double() - base[name].double()).numpy() for name in base}
    return {name.removesuffix(".weight"): delta for name, delta in deltas.items() if delta.any()}


@pytest.mark.parametrize(("method", "constraint"), [("memit", "none"), ("ft", "none"), ("memit", "prune")])
def test_a_rank_that_is_asked_for_leaves_out_the_smallest_singular_values_and_says_what_that_costs(
    made, place, tmp_path, monkeypatch, capsys, method, constraint
):
    monkeypatch.setattr(Prune, "view", lambda _self, W_base_DF, W_DF: (W_base_DF + W_DF) / 2)
    monkeypatch.setenv("COLUMNS", "300")
    run = made("llama", method, f"constraint={constraint}")
    whole = export(run, place, tmp_path / "whole")
    capsys.readouterr()
    adapter = export(run, place, tmp_path / "adapter", "replay.format=adapter", "replay.rank=2")
    said = capsys.readouterr().out + (adapter / "README.md").read_text()
    for module, delta in changes(place, "llama", whole).items():
        values = np.linalg.svd(delta, compute_uv=False)
        error = float(np.sqrt((values[2:] ** 2).sum() / (values**2).sum()))
        assert error > 1e-3 and said.count(f"{module}: rank 2, relative error {error:.1e}") == 2
    if (method, constraint) == ("memit", "none"):
        return
    export(run, place, tmp_path / "refused", "replay.format=adapter", rc=2)
    assert "is no sum of factors" in capsys.readouterr().err and not (tmp_path / "refused").exists()
    full = export(run, place, tmp_path / "full", "replay.format=adapter", "replay.rank=1000")
    edited = logits(AutoModelForCausalLM.from_pretrained(whole))
    torch.testing.assert_close(logits(with_adapter(place, "llama", full)), edited, rtol=1e-4, atol=1e-5)


def test_a_whole_model_is_written_in_the_dtype_asked_for_with_its_card_for_others_to_read(
    made, place, tmp_path, monkeypatch
):
    run, pushed = made("llama", "memit"), []
    monkeypatch.setattr(export_model, "push", lambda folder, name: pushed.append((folder, name)))
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    monkeypatch.setattr(model_source, "weights_in_words", lambda _folder: "Q4_1, dequantised")
    umask = os.umask(0o022)
    try:
        whole = export(run, place, tmp_path / "whole", "replay.dtype=bfloat16", "replay.push=me/edited")
    finally:
        os.umask(umask)
    assert pushed == [(whole, "me/edited")]
    (path,) = whole.glob("*.safetensors")
    with safe_open(path, "pt") as file:
        metadata, dtypes = file.metadata(), {file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118
    assert dtypes == {torch.bfloat16} and json.loads((whole / "config.json").read_text())["dtype"] == "bfloat16"
    assert metadata["format"] == "pt" and metadata["run"] == run.name and metadata["n_edits"] == "3"
    assert {stat.S_IMODE(file.stat().st_mode) for file in whole.iterdir()} == {0o644}
    assert logits(AutoModelForCausalLM.from_pretrained(whole)).dtype == torch.bfloat16
    card = (whole / "README.md").read_text()
    (fact, *_), *_ = [json.loads(line)["requests"] for line in (run / "edits.jsonl").read_text().splitlines()]
    assert f"- {fact['prompt'].replace('{}', fact['subject'])} → {fact['target_new']}" in card
    assert "- weights: `Q4_1, dequantised`" in card
    for said in ("library_name: transformers", run.name, "dtype: bfloat16", "| drift/perplexity |", "replay.at=3"):
        assert said in card


@pytest.mark.parametrize(("overrides", "named"), [
    (["replay.format=adapter", "replay.at=0"], "these edits changed no weight"),
    (["replay.push=edited"], "replay.push=edited is no hub id"),
    (["replay.rank=2"], "replay.rank=2; it is the rank of an adapter"),
    (["replay.format=adapter", "replay.rank=0"], "must be at least 1"),
    (["replay.format=adapter", "replay.dtype=bfloat16"], "an adapter's factors are float32"),
])  # fmt: skip
def test_keys_that_do_not_fit_an_export_are_refused(made, place, tmp_path, capsys, overrides, named):
    export(made("llama", "memit"), place, tmp_path / "no", *overrides, rc=2)
    assert named in " ".join(capsys.readouterr().err.split()) and list(tmp_path.iterdir()) == []
