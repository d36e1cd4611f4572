"""`python run.py -m …`: several runs of one command, one after the other or in several processes."""

from __future__ import annotations

import gc
import logging
import os
import re
import sys
import weakref
from pathlib import Path

import pytest

from afteredit.launch.multirun import options_first, with_keys_of_swept_entries
from afteredit.model.loading.model_source import ModelSource
from afteredit.run import main
from afteredit.store.checked_lines import Lines


@pytest.fixture
def command(tiny_folder, few_facts, tmp_path) -> list[str]:
    return ["-m", "model=hf", f"model.source={tiny_folder}", "method.second_moment=identity", "method.layer=1",
            "method.value_steps=2", "method.contexts_short=0", "method.contexts_long=0", "task=none", "n_edits=1",
            "eval_every=1", "held_out_tokens=64", "device=cpu", "tracker=none", few_facts,
            f"runs={tmp_path}/runs"]  # fmt: skip


@pytest.fixture(autouse=True)
def hydra_alone(monkeypatch):
    """Hydra's command line reads and leaves globals of the process.

    Its logging closes every handler there is; absl's (rouge_score brings it) would close pytest's own stream with it.
    """
    from hydra.core.global_hydra import GlobalHydra

    monkeypatch.setattr(logging, "_handlerList", [])

    monkeypatch.setattr(sys, "argv", ["run.py"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    yield
    GlobalHydra.instance().clear()


def configs(runs: Path) -> list[dict]:
    """Of the runs that were made to their end."""
    import yaml

    made = [path.parent for path in runs.glob("*/results-*.jsonl") if Lines(path).records[-1]["n_edits"] == 1]
    return [yaml.safe_load((folder / "config.yaml").read_text()) for folder in made]


def test_every_combination_is_run_and_one_that_fails_does_not_end_the_others(command, tmp_path, capsys):
    assert main([*command, "method=rome,rome_published", "method.layer=9,1", "seed=3"]) == 2
    made = {(config["method"]["keys"], config["method"]["layer"], config["seed"])
            for config in configs(tmp_path / "runs")}  # fmt: skip
    assert made == {("consistent", 1, 3), ("asymmetric", 1, 3)}
    error = capsys.readouterr().err
    assert error.count("error: layer 9") == 2 and "blocks 0..3" in error and "the others go on" in error
    assert "Traceback" not in error


def test_what_hydra_says_has_the_time_as_runs_write_it_and_other_packages_only_warn(capsys):
    assert main(["-m", "seed=1,2", "task=none"], lambda _x: logging.getLogger("another.package").info("chatter")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all(re.match(r"\[\d\d:\d\d:\d\d\] [\t\w]", line) for line in lines)
    assert "Launching 2 jobs locally" in lines[0] and "chatter" not in str(lines)


def test_a_run_leaves_no_model_to_the_next(command, monkeypatch):
    loaded = []
    load = ModelSource.load

    def watched(self, *arguments):
        assert all(lm() is None for lm in loaded), "the model of the run before is still there"
        lm = load(self, *arguments)
        loaded.append(weakref.ref(lm))
        return lm

    monkeypatch.setattr(ModelSource, "load", watched)
    gc.disable()  # only what run.py does may free it
    try:
        assert main([*command, "seed=1,2"]) == 0
    finally:
        gc.enable()
    assert len(loaded) == 2


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ("method=rome,rom", ["method=rom", "did you mean method=rome?"]),
        ("n_edit=1,2", ["n_edit", "did you mean n_edits?"]),
        ("method.layer=(0,1)", ["method.layer=(0,1)", "a list is written [a,b]", "with -m"]),
    ],
)
def test_what_hydra_cannot_read_ends_the_command_before_any_run(command, wrong, named, tmp_path, capsys):
    assert main([*command, "seed=1,2", wrong]) == 2
    error = capsys.readouterr().err
    assert all(text in error for text in named) and "Traceback" not in error, error
    assert configs(tmp_path / "runs") == []


@pytest.mark.parametrize("arguments", [["--n_edits", "3"], ["--n_edits=3"], ["-n_edits=3"], ["-m", "--n_edits", "3"]])
def test_a_key_that_is_written_as_an_option_is_told_how_it_is_written(arguments, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.rstrip().endswith("its value stands behind the sign =: n_edits=3")


def test_a_key_that_runs_default_lacks_may_stand_beside_several_methods():
    argv = ["-m", "method=ft,ultraedit", "method.layers=[1]", "method.laayers=[1]", "n_edits=2"]
    assert with_keys_of_swept_entries(argv) == [*argv[:2], "++method.layers=[1]", *argv[3:]]
    assert with_keys_of_swept_entries(["method=ft", *argv[2:]]) == ["method=ft", *argv[2:]]


def test_options_may_stand_anywhere():
    argv = ["seed=1", "-m", "n_edits=2", "--config-dir", "/a b", "method=rome,memit"]
    assert options_first(argv) == ["-m", "--config-dir", "/a b", "seed=1", "n_edits=2", "method=rome,memit"]


SAY_WHO = """
import os, sys

def say(event, arguments):
    if event == "os.rename" and str(arguments[1]).endswith("environment.json"):
        with open(os.environ["WHO"], "a") as file:
            file.write(f"{os.getpid()}\\n")

sys.addaudithook(say)
"""


def test_joblib_runs_two_at_a_time_in_processes_of_their_own(command, tmp_path, monkeypatch, capfd):
    """Every Python process imports sitecustomize: there each says its number as it writes an environment.json."""
    from joblib.externals.loky import get_reusable_executor

    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SAY_WHO)
    paths = os.pathsep.join([str(tmp_path / "site"), *filter(None, [os.environ.get("PYTHONPATH")])])
    for name, value in {"PYTHONPATH": paths, "WHO": str(tmp_path / "who")}.items():
        monkeypatch.setenv(name, value)
    arguments = [*command, "method.layer=0,9,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    assert main(arguments) == 2
    get_reusable_executor().shutdown()
    out, error = capfd.readouterr()
    assert sorted(config["method"]["layer"] for config in configs(tmp_path / "runs")) == [0, 1]
    assert error.count("error: layer 9") == 1
    assert len(list((tmp_path / "runs").glob("*/environment.json"))) == 2  # layer 9 is refused before it has a folder
    assert len(set((tmp_path / "who").read_text().split())) == 2
    of_runs = r"^\[\d\d:\d\d:\d\d\] (?!Joblib|Launching|\t#)(rome-hf[-0-9a-f]*:)?"  # and not Hydra's own
    said = re.findall(of_runs, out, re.MULTILINE)
    names = {f"{path.name}:" for path in (tmp_path / "runs").iterdir() if path.name != "multirun"}
    assert len(said) > 10 and set(said) == {"rome-hf:", *names}  # every line says whose it is
