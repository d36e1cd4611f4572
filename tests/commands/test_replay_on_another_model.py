"""A replay goes on with the run's own model from any folder, and with no other of the same edited matrices."""

from __future__ import annotations

import json
import shutil

import pytest

from afteredit.run import main

MEASURED = ("task=none", "held_out_tokens=64", "device=cpu")


def test_a_model_that_differs_in_its_config_alone_is_refused_and_named(tmp_path, save_tiny_llama, monkeypatch, capsys):
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "500")
    save_tiny_llama(tmp_path / "model")
    method = ("method=ft", "method.layers=[1]", "method.steps=2")
    edits = ("n_edits=1", "eval_every=1", "tracker=none", f"runs={tmp_path}/runs")
    assert main(["model=hf", f"model.source={tmp_path}/model", *method, *edits, *MEASURED]) == 0
    (run,) = (tmp_path / "runs").iterdir()
    shutil.move(tmp_path / "model", tmp_path / "moved")
    again = ("replay.at=1", f"replay.run={run}", *MEASURED)
    assert main([*again, f"model.source={tmp_path}/moved"]) == 0
    config = json.loads((tmp_path / "moved" / "config.json").read_text("utf-8"))
    config["rope_parameters"]["rope_theta"] = 10.0
    (tmp_path / "moved" / "config.json").write_text(json.dumps(config))
    for path in run.glob("results-*.jsonl"):
        path.unlink()
    assert main([*again, f"model.source={tmp_path}/moved"]) == 2
    assert "config.rope_parameters.rope_theta (10.0 here, 10000.0 there)" in capsys.readouterr().err
    assert not list(run.glob("results-*.jsonl"))


@pytest.mark.parametrize("damage", [[], "x", {"config": 3}, None])
def test_a_model_entry_that_is_no_mapping_says_nothing(damage, tmp_path, monkeypatch):
    from afteredit.record.environment import Environment

    monkeypatch.setattr("afteredit.record.environment.read_checked", lambda _path: {"model": damage})
    assert Environment(tmp_path).other_model({"config": {"rope_theta": 1.0}}) == ""
