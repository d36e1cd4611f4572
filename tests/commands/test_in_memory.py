"""Three lines of Python: those of the page run; a model edited in memory is the run's, and undone the unedited one."""

from __future__ import annotations

import gc
import json
import re
import shutil
import unicodedata
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from afteredit.analysis.numbers.flat_tables import results
from afteredit.commands.in_memory import InMemory
from afteredit.edit.constraint import Unconstrained
from afteredit.edit.request import EditRequest
from afteredit.launch import command_line
from afteredit.launch.command_line import compose
from afteredit.run import run_experiment
from afteredit.store.checked_lines import Lines
from afteredit.store.errors import BadInput

PAGE = Path(__file__).resolve().parents[2] / "docs" / "python.md"
FACTS = ["The mother tongue of {Danielle Darrieux} is → English", "The capital of {Peru} is → Oslo"]


@dataclass(frozen=True)
class Half(Unconstrained):
    def view(self, W_base_DF, W_DF):
        return (W_base_DF + W_DF) / 2


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, save_tiny_llama):
    """tiny("n_edits=2", …) -> an experiment with ROME on a tiny model."""
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny_llama(folder / "model")
    (folder / "text.txt").write_text("The old town has a market, and people come to buy fish and bread.\n" * 30)
    fixed = ["model=hf", f"model.source={folder}/model", f"method.second_moment_text={folder}/text.txt",
             "method.tokens_per_key_dim=2", "method.layer=1", "method.value_steps=4", "method.contexts_short=2",
             "method.contexts_long=0", "limit=3", "held_out_tokens=64", "tracker=none", "device=cpu",
             f"runs={folder}/runs"]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AFTEREDIT_CACHE", str(folder / "cache"))
        yield lambda *overrides: compose([*overrides, *fixed])


def weights(model) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def same(one, other) -> bool:
    return all(torch.equal(one[name], other[name]) for name in other)


def test_a_model_in_memory_holds_the_edits_of_a_run_and_undone_is_the_unedited_one(tiny):
    run = run_experiment(tiny("task=none", "eval_every=1", *(f"edits.fact={fact}" for fact in FACTS)))
    (path,) = run.glob("results-*.jsonl")
    sha256 = [row["weights_sha256"] for row in Lines(path).records]
    x = tiny()
    edited = InMemory(x)
    loaded = AutoModelForCausalLM.from_pretrained(x.model.source)
    prompt = "The capital of Peru is"
    assert same(weights(edited.model), weights(loaded)) and edited._lm.weights.sha256() == sha256[0]
    said = edited.says(prompt)
    for refused in (" ", "word " * 3000):
        with pytest.raises(BadInput, match="empty or too long"):
            edited.says(refused)
    for _ in range(2):  # undone and made again, it is the same
        assert edited.edit(*FACTS) is edited.model and edited.n_edits == 2
        assert edited._lm.weights.sha256() == sha256[2] and edited.says(prompt) != said
        assert edited.undo() is edited.model and edited.n_edits == 0
        assert same(weights(edited.model), weights(loaded)) and edited.says(prompt) == said


def test_what_metrics_see_is_handed_back_and_the_next_edit_goes_on_from_the_raw_weights(tiny):
    raw, seen = InMemory(tiny("n_edits=2")), InMemory(replace(tiny("n_edits=2"), constraint=Half()))
    name = raw._x.method.edited(raw._lm)[0]
    W_base_DF = raw._lm.weights.W(name).clone()
    raw.edit(), seen.edit()  # the first two facts of the edit set
    for _ in range(2):
        W_DF = raw._lm.weights.W(name)
        assert torch.equal(seen._lm.weights.W(name), (W_base_DF + W_DF) / 2) and not torch.equal(W_base_DF, W_DF)
        raw.edit(FACTS[0]), seen.edit(FACTS[0])
    seen.undo()
    assert torch.equal(seen._lm.weights.W(name), W_base_DF)


def test_a_model_that_was_handed_back_stays_as_it_is_when_what_made_it_is_gone(tiny):
    edited = InMemory(replace(tiny(), constraint=Half()))
    model = edited.edit(FACTS[0])
    before = weights(model)
    del edited
    gc.collect()
    assert same(weights(model), before)


def test_what_cannot_be_edited_in_memory_is_refused_and_leaves_the_model_as_it_is(tiny):
    with pytest.raises(BadInput, match="setting=single, but edits in memory add up"):
        InMemory(tiny("setting=single"))
    edited = InMemory(replace(tiny(), constraint=Half()))
    edited.edit(FACTS[0])
    before = weights(edited.model)
    for facts, named in (([FACTS[1], "Peru"], "is no fact"), (["{Peru} " + "is far " * 2000 + "→ Oslo"], "fact-1")):
        with pytest.raises(BadInput, match=named):
            edited.edit(*facts)
        assert same(weights(edited.model), before) and edited.n_edits == 1


@pytest.fixture
def short(tiny, tmp_path):
    """The experiment on a model with room for the second fact, but not after a context prefix of five tokens."""
    x = tiny("task=none", f"edits.fact={FACTS[1]}")
    folder = Path(shutil.copytree(x.model.source, tmp_path / "model"))
    room = len(AutoTokenizer.from_pretrained(folder)("The capital of Peru is Oslo").input_ids) + 3 - 1  # 3 are written
    config = json.loads((folder / "config.json").read_text("utf-8")) | {"max_position_embeddings": room}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return replace(x, model=replace(x.model, source=str(folder)), settings=replace(x.settings, runs=str(tmp_path)))


def test_a_fact_that_is_too_long_after_a_prefix_is_refused_before_any_edit(short, tmp_path):
    edited = InMemory(short)
    before = weights(edited.model)
    with pytest.raises(BadInput, match="its prompt .*, with its answer and the context prefix"):
        edited.edit(FACTS[1])
    assert same(weights(edited.model), before) and edited.n_edits == 0
    with pytest.raises(BadInput, match="its prompt .*, with its answer and the context prefix"):
        run_experiment(short)
    assert list(tmp_path.glob("rome-hf-*")) and not list(tmp_path.rglob("updates/*"))


def test_what_python_gives_is_read_as_rows_and_prompts_are(tiny):
    edited = InMemory(tiny())
    edited.edit("The mother tongue of {Danielle Darrieux} is → Język")
    typed = weights(edited.model)
    edited.undo()
    apart = unicodedata.normalize("NFD", "Język")  # e and its tail, two characters
    edited.edit(EditRequest("a ", "Danielle Darrieux\u200b ", " The mother tongue of {} is\n", f"\ufeff{apart}"))
    assert same(weights(edited.model), typed) and apart != "Język"
    said = edited.says(FACTS[0].partition(" {")[0])
    for ends in (" ", "\u00a0", "\n", "\u200b"):
        assert edited.says(f"{ends}The mother tongue of{ends}") == said
    with pytest.raises(BadInput, match="surrogate"):
        edited.says("The mother \ud800")


def test_results_are_a_row_for_each_checkpoint_with_a_column_for_each_number(tiny):
    run = run_experiment(tiny("task=[sentiment]", "n_edits=2", "eval_every=1", "seed=1"))
    (path,) = run.glob("results-*.jsonl")
    table = results(run)
    assert list(table["n_edits"]) == [0, 1, 2] and set(table["run"]) == {run.name} and set(table["method"]) == {"rome"}
    for name in ("drift/perplexity", "ability/sentiment", "drift/1/relative_norm"):
        assert list(table[name]) == [row[name] for row in Lines(path).records]
    assert len(results(run.parent)) == 3 + len(results(*(f for f in run.parent.iterdir() if f != run)))


def test_the_lines_of_the_page_run(tiny, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    monkeypatch.setattr(command_line, "compose", lambda overrides: tiny(*overrides))
    names: dict = {}
    for block in blocks:
        exec(block, names)  # noqa: S102
    assert list(names["table"]["n_edits"]) == [0, 1, 2] and "ability/nli" in names["table"]
    assert isinstance(names["answer"], str) and names["edited"].n_edits == 0
