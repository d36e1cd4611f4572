"""`locate=trace` through `run.main`, on a tiny Llama and facts that it knows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from afteredit.analysis.pictures import trace_maps
from afteredit.commands.locate import trace as module
from afteredit.commands.locate.corrupted_runs import CorruptedRuns, Effects
from afteredit.commands.locate.known_facts import Known, KnownFact
from afteredit.launch.command_line import compose
from afteredit.launch.console import new_console
from afteredit.run import main
from afteredit.store.errors import BadInput, Interrupted
from afteredit.store.rows.row_files import EMBEDDED

N_FACTS = 3


@pytest.fixture(scope="module")
def place(tmp_path_factory, save_tiny_llama) -> Path:
    """A model, and rows whose true answers are what it says: one row that it does not know, and one without an answer,
    stand in between."""
    folder = tmp_path_factory.mktemp("place")
    save_tiny_llama(folder / "model")
    lm = compose(["model=hf", f"model.source={folder}/model"]).model.load("cpu", "float32")
    rows = []
    for embedded in map(json.loads, (EMBEDDED / "facts.jsonl").read_text("utf-8").splitlines()):
        question = embedded["prompt"].replace("{}", embedded["subject"])
        ids = lm.tokens.question_ids(question)
        with torch.no_grad():
            said = int(lm.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        text = lm.tokenizer.decode([said]).strip()
        try:
            fits = bool(text) and lm.tokens.answer_ids(text, question) == (said,)
        except BadInput:
            fits = False
        if fits and len(rows) < N_FACTS + 1:
            row = {
                "id": f"k{len(rows)}",
                "subject": embedded["subject"],
                "prompt": embedded["prompt"],
                "target_true": text,
            }
            rows.append(row | {"target_new": "Oslo"})
    assert len(rows) == N_FACTS + 1
    rows.insert(1, rows[0] | {"id": "unknown", "target_true": "Paris"})
    rows.insert(2, {key: value for key, value in rows[0].items() if key != "target_true"} | {"id": "without"})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


@pytest.fixture
def locate(place, tmp_path, monkeypatch):
    """locate(*overrides) runs the command with a cache of its own; returns its exit code and what it wrote."""
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path / "cache"))

    def run(*overrides: str):
        out = tmp_path / "out"
        code = main(["locate=trace", "model=hf", f"model.source={place}/model", f"edits.file={place}/rows.jsonl",
                     "edits=my", f"locate.facts={N_FACTS}", "locate.samples=2", f"locate.out={out}", "locate.name=tiny",
                     "tracker=none", *overrides])  # fmt: skip
        written = out / "tiny-trace.json"
        return code, json.loads(written.read_text("utf-8")) if written.exists() else None

    return run


@pytest.fixture
def n_traced(monkeypatch) -> list[str]:
    """The facts that were traced since the test began."""
    traced: list[str] = []
    effects = CorruptedRuns.effects
    monkeypatch.setattr(CorruptedRuns, "effects", lambda self, fact, noise: traced.append(fact.id) or effects(
        self, fact, noise))  # fmt: skip
    return traced


def test_facts_that_the_model_knows_are_traced_and_blocks_are_proposed(locate, n_traced, tmp_path, capsys):
    code, written = locate()
    assert code == 0 and n_traced == ["k0", "k1", "k2"] == [fact["id"] for fact in written["facts"]]
    assert (written["asked"], written["unusable"], written["known"]) == (5, 1, N_FACTS)
    assert written["model"] == "tiny"  # locate.name, not "hf": the picture says whose it is
    assert written["window"] == 1 and written["blocks"] == 3  # a shallow model: the paper's share of 3 blocks
    assert set(written["averages"]) == {"hidden", "mlp", "attention"}
    mean = written["averages"]["mlp"]["last subject token"]["mean"]
    assert written["proposed"]["rome.layer"] == mean.index(max(mean[:-1])) and max(map(abs, mean)) > 0
    said = capsys.readouterr().out
    assert f"model.edit.rome.layer={written['proposed']['rome.layer']}" in said and "traced 3 of 3: k2" in said
    assert "knows 3 of 5 facts asked" in said and "1 of them could not be asked" in " ".join(said.split())
    assert (tmp_path / "out" / "tiny-trace.png").read_bytes()[:4] == b"\x89PNG"
    locate()
    assert len(n_traced) == N_FACTS  # what is cached is not traced again


def test_a_trace_that_was_stopped_goes_on_and_ends_in_the_same_numbers(locate, n_traced, monkeypatch, tmp_path):
    monkeypatch.setattr(trace_maps, "draw_trace", lambda traced, path: None)  # spares its seconds
    _, whole = locate()
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path / "other"))
    effects = CorruptedRuns.effects

    def stopping(self, fact, noise):
        if fact.id == "k2":
            raise Interrupted(15)
        return effects(self, fact, noise)

    with monkeypatch.context() as stopped:
        stopped.setattr(CorruptedRuns, "effects", stopping)
        assert locate()[0] == 128 + 15
    n_traced.clear()
    assert locate() == (0, whole)
    assert n_traced == ["k2"]


def test_what_decides_the_numbers_is_in_the_name_of_what_is_cached(place, monkeypatch, n_traced, tmp_path):
    """A key that decides them makes all facts be traced anew; one that does not, and other facts beside them, none."""
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path))
    x = compose(["locate=trace", "model=hf", f"model.source={place}/model", "locate.samples=2"])
    lm = x.model.load("cpu", "float32")
    facts = [KnownFact("a", (5, 9, 7, 3), 1, 2, 12), KnownFact("b", (8, 4), 0, 0, 3)]

    def traced(x=x, facts=facts, std=0.1) -> list[str]:
        n_traced.clear()
        module.trace(x, lm, Known([], facts, 2, 0), std, new_console(x))
        return list(n_traced)

    assert traced() == ["a", "b"] and not traced()
    for key, value in {"samples": 3, "noise": 2.0, "window": 2}.items():
        assert traced(replace(x, locate=replace(x.locate, **{key: value}))) == ["a", "b"]
    for key, value in {"out": "elsewhere", "name": "other", "window": 1}.items():  # 1 is the rule's own window
        assert not traced(replace(x, locate=replace(x.locate, **{key: value})))
    assert traced(replace(x, settings=replace(x.settings, seed=1))) == ["a", "b"]
    assert traced(std=0.2) == ["a", "b"]
    for key, value in {"id": "c", "ids": (5, 9, 7, 4), "first": 0, "last": 1, "answer": 11}.items():
        other = replace(facts[0], **{key: value})
        assert traced(facts=[other, facts[1]]) == [other.id]
    assert not traced(facts=facts[:1])
    lm.fingerprint = "other weights, dtype, tokenizer or prompt mode"
    assert traced() == ["a", "b"]


def test_noise_is_three_times_the_spread_of_embeddings_and_depends_on_seed_and_fact_alone(place, monkeypatch, tmp_path):
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path))
    x = compose(["locate=trace", "model=hf", f"model.source={place}/model", "locate.samples=400"])
    lm = x.model.load("cpu", "float32")
    facts = [KnownFact("a", (5, 9, 7, 3), 1, 2, 12), KnownFact("b", (8, 4), 0, 0, 3)]
    added = {}

    def kept(self, fact, noise_SsD):
        added[fact.id] = noise_SsD
        n_tokens = len(fact.ids) - fact.first
        return Effects(0.5, 0.1, {kind: [[0.0] * self.n_blocks] * n_tokens for kind in self.modules})

    def noise_by_fact(x=x, facts=facts) -> dict:
        added.clear()
        module.trace(x, lm, Known([], facts, len(facts), 0), 0.125, new_console(x))
        return dict(added)

    monkeypatch.setattr(CorruptedRuns, "effects", kept)
    noise = noise_by_fact()
    width = lm.model.get_input_embeddings().weight.shape[1]
    assert {name: tuple(draws.shape) for name, draws in noise.items()} == {"a": (400, 2, width), "b": (400, 1, width)}
    for draws in noise.values():
        assert draws.std().item() == pytest.approx(3 * 0.125, rel=0.03) and abs(draws.mean().item()) < 0.02
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path / "other"))
    alone = noise_by_fact(facts=[replace(facts[1], ids=(8, 5), answer=4)])
    assert torch.equal(alone["b"], noise["b"])  # whatever stands beside it, and whatever its text
    other = noise_by_fact(x=replace(x, settings=replace(x.settings, seed=1)))
    assert not torch.equal(other["b"], noise["b"]) and not torch.equal(noise["a"][:, :1], noise["b"])


@pytest.mark.parametrize(("override", "said"), [
    ("locate.facts=0", "locate.facts=0; it must be at least 1"),
    ("locate.noise=0", "locate.noise=0"),
    ("locate.steps=3", "unknown key locate.steps"),
    ("replay.run=runs/x", "replay.run"),
    ("edits=facts", "the model knows none of 200 facts"),
])  # fmt: skip
def test_bad_input_is_refused_before_anything_is_traced(override, said, locate, n_traced, capsys, place):
    extra = [override, f"edits.file={EMBEDDED / 'facts.jsonl'}"] if override == "edits=facts" else [override]
    code, written = locate(*extra)
    assert code == 2 and written is None and not n_traced
    assert said in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("name, source, expected", [
    ("", "/models/Gemma 3.gguf", "Gemma-3"),
    ("", "someone/a-model", "a-model"),
    ("mine", "/models/gemma-3.gguf", "mine"),
])  # fmt: skip
def test_a_trace_of_any_model_is_named_after_its_source_unless_a_name_is_given(name, source, expected):
    experiment = compose(["locate=trace", "model=hf", f"model.source='{source}'", f"locate.name={name}"])
    assert module.file_name(experiment) == expected
