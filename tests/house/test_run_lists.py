"""The lists of docs/results: every line is a command that the config accepts, and run_list.sh makes what is missing."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from afteredit.launch.command_line import compose
from afteredit.tests.house.source import ROOT

LISTS = sorted((ROOT / "docs" / "results").glob("*/runs.tsv"))
LINES = [(path.parent.name, *line.split("\t")) for path in LISTS
         for line in path.read_text("utf-8").splitlines() if not line.startswith("#")]  # fmt: skip
# the same but for numbers, shares kept and, as every experiment takes every model, the model
KINDS = {(line[0], re.sub(r"rect_[0-9]+|[0-9]+", "N", line[5])): line for line in LINES}
TASKS = sorted({task for line in LINES for task in line[4].split()})
STUB = """#!{python}
# Stands in for `python run.py` and `python docs/results/keep_examples.py`: writes a run directory of as many edits as
# are asked for, or sleeps where its name says so; keeps it whole.
import os, pathlib, shutil, sys, time
if sys.argv[1] == "run.py":
    given = dict(word.split("=", 1) for word in sys.argv[2:])
    run = pathlib.Path(given["runs"], "run")
    run.mkdir(parents=True, exist_ok=True)
    with open("calls", "a") as calls:
        source = pathlib.Path(given["model.source"]).resolve().name if "model.source" in given else ""
        words = [run.parent.name, given["n_edits"], os.environ["OMP_NUM_THREADS"], source]
        calls.write(" ".join(filter(None, words)) + "\\n")
    slow = "slow" in given["runs"] and not os.path.exists("quick")
    done = 50 if slow else given["n_edits"]
    (run / "config.yaml").write_text("")
    (run / "edits.jsonl").write_text(f'{{{{"n_edits": {{done}}}}}}\\n')
    (run / "results-aa.jsonl").write_text("")
    time.sleep(60 if slow else 1.2 if "twice" in given["runs"] else 0)
    sys.exit("broken" in given["runs"])
shutil.rmtree(sys.argv[3], ignore_errors=True)
shutil.copytree(sys.argv[2], sys.argv[3])
"""


@pytest.mark.parametrize("line", KINDS.values(), ids=lambda line: f"{line[0]} {line[1]} {line[2]}")
def test_every_kind_of_line_is_a_command_that_the_config_accepts(line):
    _list, model, _name, minutes, tasks, overrides = line
    assert int(minutes) > 0
    assert compose([f"model={model}", "limit=64", *shlex.split(overrides), f"task={tasks.split()[0]}"])


@pytest.mark.parametrize("task", TASKS)
def test_every_choice_of_tasks_of_a_list_is_one_that_the_config_accepts(task):
    assert compose(["limit=64", f"task={task}"]).tasks or task == "none"


def test_no_line_of_a_list_stands_twice():
    names = [line[:3] for line in LINES]
    assert len(set(names)) == len(names) and {line[0] for line in LINES} == {"limits", "study"}


@pytest.fixture
def call(tmp_path):
    """call("list") -> what the script prints in a folder of its own, whose list is made up."""
    folder = tmp_path / "docs" / "results" / "made_up"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "docs" / "results" / "run_list.sh", folder.parent)
    lines = [("short", 30, 10), ("broken", 30, 10), ("slow", 90, 1000), ("long", 60, 1000), ("long_to_1950", 60, 1950)]
    text = "".join(f"smollm2\t{name}\t{minutes}\tnone\tn_edits={n}\n" for name, minutes, n in lines)
    text += "other\ttwice\t60\tpaper all\tn_edits=20\n"
    (folder / "runs.tsv").write_text(f"# comment\n{text}")
    stub = tmp_path / "stub"
    stub.write_text(STUB.format(python=sys.executable))
    stub.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(stub), "MINUTES": "0.03"}

    def run(*words: str) -> str:
        command = ["bash", "docs/results/run_list.sh", "made_up", *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run.folder = tmp_path
    return run


def test_what_is_missing_is_listed_with_its_hours(call):
    assert call("list").splitlines()[-1] == "6 missing, 5.5 hours"
    assert call("list", "smollm2", "slow").splitlines() == ["smollm2 slow 90 min", "1 missing, 1.5 hours"]


def test_runs_are_made_in_order_kept_once_and_stopped_when_their_time_is_over(call, tmp_path):
    said = call(str(tmp_path))
    assert "FAILED smollm2 broken" in said and "keeps smollm2 slow, unfinished" in said
    calls = (tmp_path / "calls").read_text().splitlines()
    assert sorted(calls[:2]) == ["broken 10 1", "short 10 1"]  # two at a time
    assert calls[2:] == ["slow 1000 2", "long 1000 2", "long 1950 2"]  # alone
    kept = Path(tmp_path, "docs", "results", "made_up", "smollm2")
    assert sorted(path.name for path in kept.iterdir()) == ["long", "short", "slow"]
    assert '"n_edits": 1950' in (kept / "long" / "run" / "edits.jsonl").read_text()
    listed = ["smollm2 broken 30 min", "smollm2 slow 86 min, unfinished 50 edits of 1000", "2 missing, 1.9 hours"]
    assert call("list", "smollm2").splitlines() == listed
    (tmp_path / "quick").touch()
    call(str(tmp_path), "smollm2")
    assert (tmp_path / "calls").read_text().splitlines()[len(calls) :] == ["broken 10 1"]
    call(str(tmp_path), "smollm2", "slow")
    assert call("list", "smollm2").splitlines() == ["smollm2 broken 30 min", "1 missing, 0.5 hours"]


def test_both_scorings_of_a_run_share_its_time_and_a_file_gives_the_weights(call, tmp_path):
    (tmp_path / "weights.gguf").touch()
    assert "keeps other twice, unfinished" in call(str(tmp_path), "other", str(tmp_path / "weights.gguf"), "twice")
    assert (tmp_path / "calls").read_text().splitlines() == ["twice 20 2 weights.gguf"] * 2
