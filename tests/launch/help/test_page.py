"""`python run.py --help`: a page whose keys and meanings are those of conf/run.yaml."""

from __future__ import annotations

import dataclasses
import re
import shlex

import pytest

from afteredit.edit.edit_set import EditSet
from afteredit.launch.command_line import compose
from afteredit.launch.experiment import ReplaySettings, Settings, SpeedSettings
from afteredit.launch.help import page as module
from afteredit.launch.help.page import EXAMPLES, read_keys
from afteredit.record.settings import TrackerSettings
from afteredit.run import main
from afteredit.tests.house.source import ROOT

SECTIONS = read_keys((ROOT / "conf" / "run.yaml").read_text(encoding="utf-8").splitlines())
KEYS = {row.partition("=")[0]: meaning for rows in SECTIONS.values() for row, meaning in rows.items()}
CLASSES = {"": Settings, "speed.": SpeedSettings, "replay.": ReplaySettings}


def test_every_key_of_the_program_stands_in_the_page_with_its_meaning():
    known = {f"{prefix}{field.name}" for prefix, cls in CLASSES.items() for field in dataclasses.fields(cls)}
    assert known == KEYS.keys() - {row.partition("=")[0] for row in SECTIONS["defaults"]}
    assert not [key for key, meaning in KEYS.items() if not meaning]
    assert KEYS["resume"].endswith("where the journal is damaged, go on from its last whole record")  # two lines
    assert SECTIONS["keys"]["n_edits=20"] == "facts to write, in the edit set's order"


@pytest.mark.parametrize(("file", "cls"), [("edits/base", EditSet), ("tracker/wandb", TrackerSettings)])
def test_every_key_of_edits_and_tracker_stands_there_too(file, cls, capsys):
    rows, group = module.group_keys(file), file.partition("/")[0]
    assert {row.partition("=")[0] for row in rows} == {f"{group}.{field.name}" for field in dataclasses.fields(cls)} - {
        "edits.name"
    }
    assert all(rows.values())
    module.print_help()
    page = capsys.readouterr().out
    assert all(re.search(rf"^  {re.escape(row)} +\S", page, re.MULTILINE) for row in rows)


@pytest.mark.parametrize("flags", [["--help"], ["-h", "method=memit"], ["method=rom", "-m", "--help"]])
def test_help_is_our_page_and_runs_nothing(flags, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(flags, run=lambda _x: pytest.fail("it ran")) == 0
    page = capsys.readouterr().out
    assert max(map(len, page.splitlines())) <= 80 and "Hydra" not in page.replace("Hydra's other flags", "")
    assert "usage: python run.py [KEY=VALUE …]" in page and len(EXAMPLES) == 10
    assert all(example in page for example in EXAMPLES)
    assert re.search(r"method=rome +what writes the facts *\n +\(alphaedit, emmet, .*ultraedit\)", page, re.DOTALL)
    assert re.search(r"experiment=null .*gu2024/…", page, re.DOTALL) and "base" not in page.split()
    assert re.search(r"replay.drop=0.5 +with collapse", page)


def test_an_installed_program_is_named_by_its_own_command(capsys, monkeypatch):
    monkeypatch.setattr(module, "RUN", "afteredit run")
    module.print_help()
    page = capsys.readouterr().out
    assert "usage: afteredit run [KEY=VALUE …]" in page and "  afteredit run n_edits=100 " in page
    assert "python run.py" not in page


@pytest.mark.parametrize("example", [command for command in EXAMPLES if "replay" not in command])
def test_every_example_is_a_command_that_the_config_accepts(example):
    words = shlex.split(re.sub(r"<[^>]*>", "folder", example))
    several = "-m" in words
    words = [re.sub(r"=(\w+),.*", r"=\1", word) if several else word for word in words if word != "-m"]
    assert compose([*words, *(["task=none"] if not any("task" in word for word in words) else [])])
