"""The wheel: what is in it; it edits from an environment without the checkout and writes nothing beside the code."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from afteredit.analysis.__main__ import _parser as analysis_parser
from afteredit.commands import console_script
from afteredit.tests.house.source import FILES, ROOT, WINGS
from afteredit.tests.house.test_tree import PROJECT

BUILD = "import sys; from setuptools.build_meta import build_wheel; print(build_wheel(sys.argv[1]))"
SOURCE = ("pyproject.toml", "README.md", "LICENSE", "run.py", *WINGS, "conf", "data", "tests/conftest.py")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy: setuptools leaves folders beside what it builds."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in SOURCE:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    done = subprocess.run([sys.executable, "-c", BUILD, str(out)], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """A new environment that holds the wheel, read-only, and sees the packages of this one but no editable install."""
    folder = tmp_path_factory.mktemp("environment") / "env"
    venv.create(folder, symlinks=True, with_pip=True)
    subprocess.run([folder / "bin" / "pip", "install", "--quiet", "--no-index", "--no-deps", wheel], check=True)
    packages = next((folder / "lib").glob("python*/site-packages"))
    (packages / "others.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
    for path in sorted(packages.rglob("*"), reverse=True):
        path.chmod(0o555 if path.is_dir() else 0o444)
    packages.chmod(0o555)
    yield folder
    for path in [packages, *(path for path in packages.rglob("*") if path.is_dir())]:
        path.chmod(0o755)  # so that pytest can take the folder away


@pytest.fixture(scope="module")
def model(tmp_path_factory, save_tiny_llama) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_tiny_llama(folder / "tiny")
    (folder / "text.txt").write_text("The old town has a market, and people come to buy fish and bread.\n" * 30)
    return folder


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


def test_all_that_runs_is_inside_and_nothing_at_the_top_but_afteredit(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in names} == {"afteredit"}  # no `edit`, `evaluate`, `store`
    data = [path for folder in ("conf", "data") for path in (ROOT / folder).rglob("*") if path.is_file()]
    data += [path for wing in WINGS for path in (ROOT / wing).rglob("template.*")]
    expected = {path.relative_to(ROOT) for path in [*FILES, *data] if not path.is_relative_to(ROOT / "bench")}
    assert names == {f"afteredit/{path.as_posix()}" for path in expected}


def test_two_edits_with_the_console_script_from_read_only_packages(environment, model, tmp_path):
    packages = next((environment / "lib").glob("python*/site-packages"))
    before = contents(packages)
    command = ["afteredit", "run", "model=hf", f"model.source={model}/tiny", "method.layer=1", "method.value_steps=2",
               f"method.second_moment_text={model}/text.txt", "method.tokens_per_key_dim=2", "method.contexts_short=2",
               "method.contexts_long=0", "held_out_tokens=64", "task=none", "n_edits=2", "eval_every=2",
               "tracker=none", "device=cpu"]  # fmt: skip
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    place = clean | {"PATH": f"{environment}/bin:{clean['PATH']}", "AFTEREDIT_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, cwd=tmp_path, env=place, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs").iterdir()
    assert len((run / "edits.jsonl").read_text().splitlines()) == 2
    (rows,) = run.glob("results-*.jsonl")
    assert [json.loads(line)["n_edits"] for line in rows.read_text().splitlines()] == [0, 2]
    kept = json.loads((run / "environment.json").read_text())
    assert kept["commit"] == PROJECT["project"]["version"] and kept["commands"][0].startswith("afteredit run model=hf")
    assert contents(packages) == before and {path.name for path in tmp_path.iterdir()} == {"runs", "cache"}


@pytest.mark.parametrize(
    ("typed", "module", "words"),
    [
        ("run n_edits=2 -m", "afteredit.run", ["n_edits=2", "-m"]),
        ("run --help", "afteredit.run", ["--help"]),
        ("chat replay.run=r replay.at=1", "afteredit.run", ["replay.run=r", "replay.at=1", "replay.chat=true"]),
        ("locate model=gptj", "afteredit.run", ["model=gptj", "locate=trace"]),
        ("plan n_edits=100", "afteredit.run", ["n_edits=100", "plan=machine"]),
        ("locate locate=tune", "afteredit.run", ["locate=tune"]),
        ("report a b --at 3", "afteredit.analysis", ["report", "a", "b", "--at", "3"]),
        ("limits a", "afteredit.analysis", ["limits", "a"]),
    ],
)
def test_each_command_is_the_program_that_is_there_already(typed, module, words, monkeypatch):
    started = []
    monkeypatch.setattr(console_script.runpy, "run_module", lambda name, **_: started.append((name, sys.argv[1:])))
    monkeypatch.setattr(sys, "argv", ["afteredit", *typed.split()])
    assert console_script.main() == 0 and started == [(module, words)]


def test_another_word_is_refused_with_the_commands(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["afteredit", "n_edits=2"])
    assert console_script.main() == 2
    said = capsys.readouterr().err
    assert "no command 'n_edits=2'; did you mean afteredit run?" in said and "report RUNS…" in said


def test_the_usage_names_every_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["afteredit"])
    assert console_script.main() == 0
    said = capsys.readouterr().out
    assert all(f" {name} " in said for name in (*console_script.OF_RUN, *console_script.OF_ANALYSIS))
    (of_analysis,) = analysis_parser()._subparsers._group_actions
    assert set(console_script.OF_ANALYSIS) == set(of_analysis.choices)
