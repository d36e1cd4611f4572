"""docs/template is a folder to copy: what docs/own-code.md says of it is run here, in a copy."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from afteredit.launch.command_line import compose
from afteredit.run import main
from afteredit.store import own_code
from afteredit.store.checked_lines import Lines
from afteredit.store.code_version import plugin_code
from afteredit.store.errors import BadInput

TEMPLATE = Path(__file__).resolve().parents[2] / "docs" / "template"
CODE = "own_code=[./my_edits]"
OWN = ["method=nudge", "constraint=share", "edits=my_facts", "task=[capitals]", "method.layer=1"]


@pytest.fixture
def copy(tmp_path, monkeypatch) -> Path:
    """A copy of the template, where commands are run from."""
    from hydra.core.global_hydra import GlobalHydra

    folder = shutil.copytree(TEMPLATE, tmp_path / "copy")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(logging, "_handlerList", [])  # Hydra's logging closes every handler there is
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    yield folder
    GlobalHydra.instance().clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_edits"]:
        del sys.modules[name]


@pytest.fixture
def command(tiny_folder):
    def run(*arguments: str) -> int:
        return main(["--config-dir", "conf", "model=my_model", f"model.source={tiny_folder}", "n_edits=2",
                     "eval_every=2", "held_out_tokens=64", "device=cpu", "tracker=none", *arguments])  # fmt: skip

    return run


def rows(run: Path) -> list[dict]:
    return [row for path in run.glob("results-*.jsonl") for row in Lines(path).records]


def runs() -> set[Path]:
    return set(Path("runs").glob("nudge-*"))


def rewrite(path: str, old: str, new: str) -> None:
    text = Path(path).read_text()
    assert old in text
    Path(path).write_text(text.replace(old, new))


def test_the_template_runs_and_its_source_is_in_the_names(copy, command):
    assert command(CODE, *OWN) == 0
    (first,) = runs()
    assert [row["n_edits"] for row in rows(first)] == [0, 2]
    assert {"ability/capitals", "ability/capitals/gold_nll"} <= set(rows(first)[0])
    facts = [json.loads(line)["requests"][0]["subject"] for line in (first / "edits.jsonl").read_text().splitlines()]
    assert facts == ["Lake Baikal", "The cello"]

    rewrite("my_edits/scores.py", ".lower()))}", ".lower() or 'never'))}")
    assert command(CODE, *OWN) == 0
    assert runs() == {first}  # measured in another way, and the same edits
    assert len(list(first.glob("results-*.jsonl"))) == 2

    rewrite("my_edits/nudge.py", "self.strength *", "2 * self.strength *")
    assert command(CODE, *OWN) == 0
    (second,) = runs() - {first}
    moved = [rows(run)[-1]["drift/1/relative_norm"] for run in (first, second)]
    assert moved[1] == pytest.approx(2 * moved[0], rel=1e-4)  # what was read anew is what ran

    assert command(CODE, *OWN, "constraint.share=0.25") == 0
    (third,) = runs() - {first, second}
    assert rows(third)[-1]["drift/1/relative_norm"] == pytest.approx(moved[0], rel=1e-4)


def test_only_the_command_lets_code_of_a_run_or_of_a_yaml_file_run(copy, command, tiny_folder, capsys):
    assert command(CODE, *OWN) == 0
    (run,) = runs()
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_edits"]:
        del sys.modules[name]
    replay = [f"replay.run={run}", "replay.at=1", f"model.source={tiny_folder}", "task=none", "tracker=none"]
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["own_code"] == ["./my_edits"]  # it is said there, but not by this command
    assert main(replay) == 2
    assert "own_code=[./my_code]" in capsys.readouterr().err and "my_edits" not in sys.modules
    assert main([*replay, CODE]) == 0
    (copy / "conf" / "experiment").mkdir()
    (copy / "conf" / "experiment" / "own.yaml").write_text("# @package _global_\nown_code: [./my_edits]\n")
    assert command("experiment=own", *OWN) == 2
    assert "only a command may" in capsys.readouterr().err


def test_an_installed_package_is_named_without_a_slash_and_its_yaml_by_a_search_path(copy, monkeypatch):
    monkeypatch.setattr(own_code, "_allowed", set())
    monkeypatch.syspath_prepend(str(copy))  # as pip's editable install puts it there
    given = ["hydra.searchpath=[conf]", "method=nudge", "task=none"]
    with pytest.raises(BadInput, match=r"my_edits.*own_code=\[./my_code\]"):
        compose(given)
    method = compose([*given, "own_code=[my_edits]"]).method
    assert (type(method).__module__, method.strength) == ("my_edits.nudge", 1.0)
    before = plugin_code(type(method))
    rewrite("my_edits/nudge.py", "self.strength *", "2 * self.strength *")
    assert plugin_code(type(method)) != before


def test_what_is_wrong_with_a_folder_is_named(copy, command, capsys):
    refused = {
        "method=nudg": ["did you mean method=nudge?"],
        "method.strenth=1": ["method.strenth", "method.strength"],
        "own_code=[./evaluate]": ["./evaluate", "no folder"],
        "own_code=[my_edits]": ["my_edits", "own_code=[./my_edits]"],
        "own_code=[afteredit]": ["afteredit"],
        "hydra.searchpath=[nowhere]": ["nowhere", "no folder"],
    }
    (copy / "yaml").mkdir()
    for argument, words in refused.items():
        assert command(CODE, *OWN, argument) == 2
        error = capsys.readouterr().err
        assert all(word in error for word in words), (argument, error)
    assert command("own_code=[./yaml]", *OWN) == 2
    assert "another yaml" in capsys.readouterr().err
    rewrite("my_edits/nudge.py", "class Nudge(Method):", "class Nudge(Method)")
    assert command(CODE, *OWN) == 2
    assert "nudge.py, line" in capsys.readouterr().err


def test_a_command_is_kept_with_the_folders_that_it_named(copy, command):
    assert command(CODE, *OWN) == 0
    (run,) = runs()
    environment = json.loads((run / "environment.json").read_text())
    assert "hydra.searchpath=['conf']" in json.dumps(environment)


def test_lm_evals_own_task_files_are_measured_and_hashed(copy, command):
    harness = [CODE, *OWN, "task=none", "harness_path=harness", "harness=[rivers]"]
    assert command(*harness) == 0
    (run,) = runs()
    assert {row["ability/rivers"] for row in rows(run)} <= {0.0, 1 / 3, 2 / 3, 1.0}
    rewrite("harness/rivers.yaml", "longest river", "shortest river")
    assert command(*harness) == 0
    assert runs() == {run} and len(list(run.glob("results-*.jsonl"))) == 2
    rewrite("harness/rivers.py", "named first", "written first")
    assert command(*harness) == 0
    assert len(list(run.glob("results-*.jsonl"))) == 3
