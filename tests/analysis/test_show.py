"""Runs in the terminal: what state each is in, by its files alone, and the curves of one."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import signal
import time

import pytest
from filelock import FileLock

from afteredit.analysis.__main__ import main
from afteredit.analysis.read.run_states import run_state
from afteredit.analysis.show import show
from afteredit.analysis.tables.run_list import ago
from afteredit.analysis.tables.text_curves import blocks
from afteredit.record.terminal import PlainConsole
from afteredit.store.checked_lines import write_checked
from afteredit.store.errors import Interrupted

NLI = {"nli": [1.0] * 8 + [0.0] * 2}
HALF = {"nli": [1.0] * 6 + [0.0] * 4, "reasoning": [0.0] * 10}
START = {**NLI, "reasoning": [0.0] * 10}


@pytest.fixture
def runs(tmp_path, made_run):
    """Six runs of ten edits, one in each state, and one of `setting=single`, in a folder with others inside."""
    ten = {"n_edits": 10}
    made_run(tmp_path / "deep", "rome", 1, {0: START, 5: HALF, 10: HALF}, config=ten)
    made_run(tmp_path, "memit", 2, {0: START, 5: START}, config=ten)
    made_run(tmp_path, "ft", 3, {0: START, 5: HALF}, config=ten, perplexity={5: 20000.0})
    made_run(tmp_path, "emmet", 4, {0: START, 5: START}, config=ten)
    made_run(tmp_path, "kn", 5, {0: START, 5: HALF, 10: START}, config={**ten, "setting": "single"})
    pending = tmp_path / "mend-tiny-00000006"
    pending.mkdir()
    write_checked(pending / "environment.json", {"model": {}})
    return tmp_path


def listed(capsys) -> dict[str, list[str]]:
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    return {cells[0]: [cell.strip() for cell in cells[1:] if cell.strip()] for cells in lines}


def test_every_run_is_listed_with_its_state_the_last_changed_at_the_end(runs, capsys):
    os.utime(runs / "memit-tiny-00000002" / "edits.jsonl", (time.time() + 60, time.time() + 60))
    with FileLock(runs / "emmet-tiny-00000004" / ".lock"):
        assert main(["show", str(runs)]) == 0
    found = listed(capsys)
    assert list(found)[0] == "run" and list(found)[-1] == "memit-tiny-00000002"
    assert {name: cells[:4] for name, cells in found.items()} == {
        "run": ["edits", "state", "retained", "efficacy"],
        "deep/rome-tiny-00000001": ["10/10", "finished", "0.33", "0.90"],  # (0.6 − 0.5) / (0.8 − 0.5)
        "memit-tiny-00000002": ["5/10", "stopped", "1.00", "0.90"],
        "ft-tiny-00000003": ["5/10", "collapsed at 5", "0.33", "0.90"],
        "emmet-tiny-00000004": ["5/10", "running", "1.00", "0.90"],
        "kn-tiny-00000005": ["10/10", "finished", "0.67", "0.90"],  # the mean over two models
        "mend-tiny-00000006": ["0/?", "pending", "-", "-"],
    }
    assert run_state(runs / "emmet-tiny-00000004").state == "stopped"  # the lock is free again


def test_edits_that_are_written_and_not_measured_are_pending_and_a_collapse_is_no_longer_running_alone(runs):
    path = runs / "memit-tiny-00000002" / "config.yaml"
    path.write_text(path.read_text().replace("n_edits: 10", "n_edits: 5"))
    state = run_state(path.parent)
    assert state.state == "finished" and "does not match" not in str(state.faults)
    (path.parent / "results-aaaaaaaa.jsonl").write_text(
        "".join((path.parent / "results-aaaaaaaa.jsonl").read_text().splitlines(keepends=True)[:1])
    )
    assert run_state(path.parent).state == "pending"
    with FileLock(runs / "ft-tiny-00000003" / ".lock"):
        assert run_state(runs / "ft-tiny-00000003").state == "running, collapsed at 5"


def test_one_run_is_drawn_with_its_collapse_and_its_commands(runs, capsys):
    folder = runs / "ft-tiny-00000003"
    command = "python run.py method=ft"
    write_checked(folder / "environment.json", {"model": {}, "commands": [command], "wandb": [{"url": "https://w/x"}],
                                                 "weights": "Q4_K, dequantised"})  # fmt: skip
    assert main(["show", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "5 of 10 edits, collapsed at 5" in said
    collapsed = "collapsed at 5 edits: perplexity 20,000 is above 100 times the unedited model's 20"
    assert collapsed in " ".join(said.split())
    assert f"weights  Q4_K, dequantised\ncommand  {command}" in said and "https://w/x" in said
    rows = {line.split("  ")[0]: line.split() for line in said.splitlines() if "▁" in line or "█" in line}
    assert rows["abilities retained"][2::2] == ["1.000", "0.333"] and rows["nli"][1::2] == ["0.800", "0.600"]
    assert set(rows["abilities retained"][3][:-1]) == {"█"} and rows["abilities retained"][3][-1] == "▃"
    assert rows["perplexity"][1::2] == ["20.0", "20,000.0"] and rows["perplexity"][2][-1] == "█"
    assert "reasoning *" in rows and "* not measurable" in said


def test_a_run_of_which_half_was_copied_says_so(runs, capsys):
    folder = runs / "memit-tiny-00000002"
    lines = (folder / "edits.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "edits.jsonl").write_text("".join(lines[:3]), encoding="utf-8")
    assert main(["show", str(folder)]) == 1
    assert "damaged" in capsys.readouterr().out
    assert any("edits.jsonl holds 3 edits, but results-aaaaaaaa.jsonl measured 5" in fault
               for fault in run_state(folder).faults)  # fmt: skip
    write_checked(folder / "environment.json", {"model": {}, "lines": {"edits.jsonl": 5}})
    assert any("edits.jsonl holds 3 of the 5 lines that the run wrote; restore it" in fault
               for fault in run_state(folder).faults)  # fmt: skip


def test_damage_is_said_and_ends_in_1_and_no_run_in_2(runs, tmp_path, capsys):
    path = runs / "memit-tiny-00000002" / "results-aaaaaaaa.jsonl"
    path.write_text(path.read_text().replace('"drift/perplexity": 25.0', '"drift/perplexity": 24.0'))
    assert json.loads(path.read_text().splitlines()[1])["drift/perplexity"] == 24.0
    assert main(["show", str(runs)]) == 1
    assert "stopped, damaged" in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    for name in ("empty", "nowhere"):
        assert main(["show", str(tmp_path / name)]) == 2
    assert "holds none" in capsys.readouterr().err


@pytest.mark.parametrize(("problem", "code", "said"), [
    (Interrupted(signal.SIGINT), 130, "stopped; give the same command again"),
    (PermissionError(errno.EACCES, "Permission denied", "runs/x"), 2, "runs/x cannot be used"),
])  # fmt: skip
def test_a_list_that_ends_early_says_so_in_a_line(runs, capsys, monkeypatch, problem, code, said):
    def fails(*_):
        raise problem

    monkeypatch.setattr("afteredit.analysis.show.run_states", fails)
    assert main(["show", str(runs)]) == code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("nonsense", [5, "x", [7, None], {"a": 1}])
def test_nonsense_about_commands_and_w_and_b_is_left_out(runs, capsys, nonsense):
    folder = runs / "ft-tiny-00000003"
    write_checked(folder / "environment.json", {"model": {}, "commands": nonsense, "wandb": nonsense})
    assert main(["show", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "5 of 10 edits" in said and "command" not in said and "W&B" not in said


def test_a_run_whose_unedited_model_is_not_measured_yet_has_no_curves(runs, capsys):
    folder = runs / "memit-tiny-00000002"
    path = folder / "results-aaaaaaaa.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    main(["show", str(folder)])
    assert "the unedited model is not measured yet" in capsys.readouterr().out


@pytest.mark.parametrize("width", [80, 100])
def test_list_and_curves_fit_the_terminal(runs, width):
    console = PlainConsole(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    show([runs, runs / "ft-tiny-00000003"], console)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert sum("-tiny-0000000" in line for line in lines) == 7  # six names in the list, none of them broken


def test_blocks_stand_evenly_over_the_edits_and_hold_the_last_value():
    assert blocks([0, 5, 10], [1.0, 0.5, 0.0], 11) == "█████▅▅▅▅▅▁"
    assert blocks([0, 10], [0.4, 0.2], 3) == "██▅" and blocks([0, 10], [0.4, 0.2], 3, full=True) == "▄▄▂"
    assert blocks([0, 1, 2], [20.0, 40.0, 320.0], 3, log=True) == "▁▃█"
    assert blocks([0, 1], [20.0, 20.5], 2, log=True) == "▁▁"  # within a factor of two
    assert blocks([0, 1, 2], [20.0, math.inf, math.nan], 3, log=True) == "▁█ "
    assert blocks([0], [0.5], 2) == "██" and blocks([0, 1], [0.0, -0.5], 2) == "▁▁"


def test_how_long_ago():
    now = time.time()
    assert [ago(now - s) for s in (-5, 3, 61, 7300)] == ["0 s ago", "3 s ago", "1 min ago", "2 h ago"]
    assert len(ago(now - 90000)) == len("2026-11-29 23:12")
