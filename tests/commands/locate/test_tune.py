"""`locate=tune` through `run.main`, on a tiny Llama: what it tries, what it writes, and that the file can be used."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from afteredit.analysis.pictures import trace_maps
from afteredit.commands.locate import trials
from afteredit.commands.locate import tune as module
from afteredit.commands.locate.known_facts import Known, KnownFact
from afteredit.commands.locate.trials import Trials, kept_trials
from afteredit.launch.command_line import compose
from afteredit.run import main

ROWS = 2


@pytest.fixture(scope="module")
def model(tmp_path_factory, save_tiny_llama):
    folder = tmp_path_factory.mktemp("model")
    save_tiny_llama(folder)
    (folder / "text.txt").write_text("One old town lies by the sea. " * 400)
    return folder


@pytest.fixture
def tune(model, tmp_path, monkeypatch):
    """tune(*overrides): runs the command, with a cache of its own; it knows a fact that is made up."""
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(trace_maps, "draw_trace", lambda traced, path: None)
    fact = KnownFact("f", (5, 9, 7, 3), 1, 2, 12)
    monkeypatch.setattr(module, "known_facts", lambda lm, requests, n: Known(list(requests[:1]), [fact], 1, 0))
    return lambda *overrides: main([
        "locate=tune", "model=hf", f"model.source={model}", f"locate.out={tmp_path}/out", "locate.name=tuned-tiny",
        f"locate.rows={ROWS}", "locate.samples=1", f"method.second_moment_text={model}/text.txt", "tracker=none",
        "held_out_tokens=64", "method.tokens_per_key_dim=20", *overrides])  # fmt: skip


def test_what_is_tuned_is_written_as_a_models_file_with_its_sources(tune, tmp_path, capsys, monkeypatch):
    edited = []
    try_one = Trials._edited
    monkeypatch.setattr(Trials, "_edited", lambda self, method, name, request, **rest: edited.append(
        (method, request.subject)) or try_one(self, method, name, request, **rest))  # fmt: skip
    assert tune() == 0
    written = (tmp_path / "out" / "model" / "tuned-tiny.yaml").read_text("utf-8")
    x = compose([f"hydra.searchpath=[{tmp_path}/out]", "model=tuned-tiny"])
    assert compose(["--config-dir", f"{tmp_path}/out", "model=tuned-tiny"]).model == x.model
    rome, memit = x.model.edit["rome"], x.model.edit["memit"]
    trace = json.loads((tmp_path / "out" / "tuned-tiny-trace.json").read_text("utf-8"))
    assert x.method.layer == rome["layer"] in (0, 1) and memit["layers"] in ([0, 1], [0], [1])
    assert rome["value_lr"] == 0.5  # the base's
    assert x.model.shape["blocks"] == 3 and x.model.shape["inner"] == 24
    assert f"proposes rome.layer {trace['proposed']['rome.layer']}" in " ".join(written.split())
    assert len(re.findall(r"^  # rome layer=", written, re.MULTILINE)) == len(re.findall(r"rome layer=\d", written)) > 4
    assert x.model.load("cpu", "float32").n_blocks == 3
    evaluated = {request.subject for request in x.edits.read("mini", 0)[0]}
    assert edited and not {subject for _, subject in edited} & evaluated
    assert "hydra.searchpath" in capsys.readouterr().out

    n_edits = len(edited)
    assert tune() == 0 and len(edited) == n_edits  # every trial is kept
    assert (tmp_path / "out" / "model" / "tuned-tiny.yaml").read_text("utf-8") == written


def test_a_score_is_the_product_of_means_divided_by_the_growth_of_perplexity(model, tmp_path, monkeypatch):
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path))
    x = compose(["model=hf", f"model.source={model}", "held_out_tokens=64"])
    lm = x.model.load("cpu", "float32")
    with kept_trials(x, lm) as kept:
        tried = Trials(x, lm, [], kept)
    unedited = tried.unedited["perplexity"]
    found = {"prob/efficacy": 1.0, "generated/efficacy": 0.5, "prob/paraphrase": 0.8, "generated/paraphrase": 0.4,
             "prob/neighbourhood": 0.9, "generated/neighbourhood": 0.7, "perplexity": unedited / 2}  # fmt: skip
    assert tried.score(found) == pytest.approx(0.75 * 0.6 * 0.8)
    assert tried.score(found | {"perplexity": 2 * unedited}) == pytest.approx(0.75 * 0.6 * 0.8 / 2)
    without = {key: value for key, value in found.items() if "paraphrase" not in key}
    assert tried.score(without) == pytest.approx(0.75 * 0.8)


def test_what_decides_a_trial_beside_method_and_row_is_in_the_name_of_the_file(model, tmp_path, monkeypatch):
    (tmp_path / "text.txt").write_text("Another text.")
    x = compose(["model=hf", f"model.source={model}", "task=none"])
    lm = x.model.load("cpu", "float32")
    names = {kept_trials(x, lm)._name}
    assert names == {kept_trials(x, lm)._name}
    for key, value in {"seed": 1, "held_out": f"{tmp_path}/text.txt", "held_out_tokens": 65}.items():
        names.add(kept_trials(replace(x, settings=replace(x.settings, **{key: value})), lm)._name)
    with monkeypatch.context() as patch:
        patch.setattr(trials, "measuring_version", lambda: {"code": "another"})
        names.add(kept_trials(x, lm)._name)
    with monkeypatch.context() as patch:
        patch.setattr(trials, "editing_version", lambda: {"code": "another"})
        names.add(kept_trials(x, lm)._name)
    lm.tokens.separator = "none"
    names.add(kept_trials(x, lm)._name)
    lm.fingerprint = "another model"
    assert len(names | {kept_trials(x, lm)._name}) == 8


@pytest.mark.parametrize(("proposed", "own", "expected"), [
    (3, None, [3, 1, 2, 4, 5, 0]),  # of twelve blocks a quarter of the way up is 3
    (10, 8, [10, 8, 9, 0, 1, 3]),  # the last block is not tried
    (0, None, [0, 1, 2, 3]),
])  # fmt: skip
def test_blocks_to_try_are_the_proposed_one_its_neighbours_the_lowest_and_what_is_known(proposed, own, expected):
    class Twelve:
        n_blocks = 12

    x = compose([])
    x = replace(x, model=replace(x.model, edit={"rome": {"layer": own}}))
    assert [keys["layer"] for keys in module._layers(x, Twelve(), "rome", {"rome.layer": proposed})] == expected


@pytest.mark.parametrize(("proposed", "own", "expected"), [
    ([4, 5, 6], None, [[4, 5, 6], [2, 3, 4], [3, 4, 5], [5, 6, 7], [6, 7, 8], [0, 1, 2], [1, 2, 3], [0, 1, 2, 3]]),
    ([6, 7, 8, 9, 10], [3, 4], [[6, 7, 8, 9, 10], [4, 5, 6, 7, 8], [5, 6, 7, 8, 9], [0, 1, 2, 3, 4], [1, 2, 3, 4, 5],
                                [0, 1, 2, 3], [3, 4]]),
    ([0, 1, 2, 3], [1, 2, 3, 4], [[0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5]]),  # each once, none below block 0
])  # fmt: skip
def test_windows_to_try_are_the_proposed_one_its_neighbours_the_lowest_and_what_is_known(proposed, own, expected):
    class Twelve:
        n_blocks = 12

    x = compose([])
    x = replace(x, model=replace(x.model, edit={"memit": {"layers": own}}))
    assert [keys["layers"] for keys in module._layers(x, Twelve(), "memit", {"memit.layers": proposed})] == expected


def test_at_the_best_blocks_steps_contexts_and_weights_are_tried_what_the_models_file_says_first():
    class Lm:
        n_blocks = 12

    x = compose([])
    rome = {"value_steps": 20, "contexts_short": 10, "contexts_long": 10}
    memit = {"layers": [3], "second_moment_weight": 1500, "value_steps": 25, "contexts": 5}
    x = replace(x, model=replace(x.model, edit={"rome": rome, "memit": memit}))
    tried = module._others(x, Lm(), "rome", {"layer": 4})
    assert all(keys["layer"] == 4 and len(keys) == 4 for keys in tried)
    assert [(keys["contexts_short"], keys["contexts_long"], keys["value_steps"]) for keys in tried] == [
        (10, 10, 20), (10, 10, 10), (5, 5, 20), (5, 5, 10)]  # fmt: skip
    x.model.edit["rome"].update(contexts_short=2, contexts_long=0, value_steps=1)
    tried = module._others(x, Lm(), "rome", {"layer": 4})
    assert [(keys["contexts_short"], keys["contexts_long"], keys["value_steps"]) for keys in tried] == [
        (2, 0, 1), (5, 5, 1), (10, 10, 1)]  # fmt: skip
    tried = module._others(x, Lm(), "memit", {"layers": [3, 4]})
    assert all(keys["layers"] == [3, 4] and len(keys) == 4 for keys in tried)
    assert [(keys["second_moment_weight"], keys["contexts"], keys["value_steps"]) for keys in tried] == [
        (1500, 5, 25), (1500, 5, 12), (1500, 2, 25), (1500, 2, 12), (150, 5, 25), (150, 5, 12), (150, 2, 25),
        (150, 2, 12), (15000, 5, 25), (15000, 5, 12), (15000, 2, 25), (15000, 2, 12)]  # fmt: skip


def test_a_model_without_a_tuned_weight_tries_gpt_js_in_proportion_to_its_width():
    class Lm:
        n_blocks = 12

        def widths(self, _layer):
            return 576, 1536

    own = {"layers": None, "second_moment_weight": 15000}
    assert module._weights(Lm(), own, [4]) == [1400, 140, 14000]
    assert module._weights(Lm(), own | {"layers": [3], "second_moment_weight": 1500}, [4]) == [1500, 150, 15000]


@pytest.mark.parametrize(("override", "said"), [
    ("locate.methods=[kn]", "locate.methods=['kn']; allowed: rome, memit"),
    ("locate.rows=0", "locate.rows=0; it must be at least 1"),
    ("edits.train=''", "no training split"),
])  # fmt: skip
def test_bad_input_is_refused_before_the_model_is_loaded(override, said, tune, capsys, monkeypatch):
    monkeypatch.setattr(module, "load_model", lambda *_: pytest.fail("loaded"))
    assert tune(override) == 2
    assert said in " ".join(capsys.readouterr().err.split())
