"""What is refused before anything is composed."""

from __future__ import annotations

import sys

import pytest

from afteredit.run import main


@pytest.fixture(autouse=True)
def as_a_program(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["run.py"])


@pytest.mark.parametrize("argument", [
    "+hydra.job.env_set.HF_TOKEN=hf_secret", "hydra.job.env_set.WANDB_API_KEY=hf_secret",
    "+hydra.job.env_set={MY_SECRET: hf_secret}", "hydra.launcher.setup=['export DB_PASSWORD=hf_secret']",
])  # fmt: skip
@pytest.mark.parametrize("flags", [[], ["-m", "seed=0,1"]])
def test_a_key_for_the_jobs_is_refused_without_being_shown_or_kept(argument, flags, tmp_path, capsys):
    assert main([*flags, argument, "task=none", f"runs={tmp_path}/runs"]) == 2
    error = capsys.readouterr().err
    assert "set the variable before the command" in error and "hf_secret" not in error
    assert not list(tmp_path.iterdir())


def test_a_working_folder_that_was_removed_is_named(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(["task=none"]) == 2
    assert "the working folder is not there any more" in capsys.readouterr().err
