"""What a report says that is stopped, that has no output, or whose runs have names that are not UTF-8."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys

import pytest

from afteredit.analysis import report
from afteredit.analysis.__main__ import main

START, WORSE = {"nli": [1, 1, 1, 1, 0]}, {"nli": [1, 1, 1, 0, 0]}


@pytest.fixture
def folder(tmp_path, made_run, only_parts):
    only_parts("methods")
    return made_run(tmp_path, "rome", 1, {0: START, 3: WORSE})


class Full(io.StringIO):
    def write(self, _text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_report_says_that_nothing_was_written_and_leaves_nothing(folder, monkeypatch, capsys, number):
    out = folder.parent / "out"
    made = report._section

    def stopped(*given):
        section = made(*given)
        assert list(out.iterdir())  # the tables stand there under other names
        os.kill(os.getpid(), number)
        return section

    monkeypatch.setattr(report, "_section", stopped)
    assert main(["report", str(folder), "--out", str(out)]) == 128 + number
    assert f"error: stopped; nothing was written to {out}" in " ".join(capsys.readouterr().err.split())
    assert not list(out.iterdir())


def test_a_signal_while_the_files_take_their_places_is_too_late(folder, monkeypatch):
    out, replace = folder.parent / "out", os.replace

    def place(source, target):
        if str(target).endswith("metrics.csv"):
            os.kill(os.getpid(), signal.SIGINT)
        replace(source, target)

    monkeypatch.setattr(os, "replace", place)
    assert main(["report", str(folder), "--out", str(out)]) == 0
    assert (out / "report.html").is_file() and (out / "metrics.csv").is_file()
    assert not [path for path in out.iterdir() if path.suffix == ".part"]


def test_a_full_disk_under_the_output_says_to_make_room_and_that_the_page_is_there(folder, monkeypatch, capsys):
    out = folder.parent / "out"
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Full())
        assert main(["report", str(folder), "--out", str(out)]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "No space left on device); make room; " in error and f"{out / 'report.html'} was written" in error
    assert (out / "report.html").is_file()


def test_a_folder_whose_name_is_not_utf8_is_shown_spelled_out(folder):
    other, out = folder.with_name("rome-\udcff"), folder.parent / "out"
    folder.rename(other)
    (other / "edits.jsonl").unlink()  # named, with the folder, on the page
    assert main(["report", str(other), "--out", str(out)]) == 1
    assert "rome-\\udcff/edits.jsonl" in (out / "report.html").read_text(encoding="utf-8")
    assert "rome-\\udcff" in (out / "metrics.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["report.html", "metrics.csv"])
def test_a_file_of_somebody_else_is_not_replaced(folder, tmp_path, capsys, name):
    out = tmp_path / "thesis"
    out.mkdir()
    (out / name).write_text("my own")
    assert main(["report", str(folder), "--out", str(out)]) == 2
    assert (
        f"{out / name} is there already and was not written by this command; move it away"
        in capsys.readouterr().err.replace("\n", "")
    )
    assert {path.name: path.read_text() for path in out.iterdir()} == {name: "my own"}
    (out / name).rename(out / "mine")
    for _ in range(2):  # its own page is replaced
        assert main(["report", str(folder), "--out", str(out)]) == 0


def test_modules_and_settings_of_the_working_folder_are_not_used(tmp_path, made_run):
    run = made_run(tmp_path / "runs", "rome", 1, {0: START})
    for name in ("argparse", "rich", "pandas", "numpy"):
        (run / f"{name}.py").write_text("open('ran', 'w')")
    (run / "matplotlibrc").write_text("font.size: 30")
    command = [sys.executable, "-m", "afteredit.analysis", "report", str(run), "--out"]
    for place, out in ((run, "here"), (tmp_path, "elsewhere")):
        subprocess.run([*command, str(tmp_path / out)], cwd=place, check=True, capture_output=True)
    assert not (run / "ran").exists()
    here, elsewhere = ((tmp_path / out / "retained.png").read_bytes() for out in ("here", "elsewhere"))
    assert here == elsewhere
