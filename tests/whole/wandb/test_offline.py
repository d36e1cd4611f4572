"""A server that dies, is not there, or comes later: the run does not mind, and `wandb sync` makes W&B whole."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from afteredit.record.results import Results
from afteredit.record.settings import TrackerSettings
from afteredit.record.tracking.tracker import Tracker
from afteredit.run import main
from afteredit.store.checked_lines import Lines

BARELY_WORSE = "collapse_perplexity=1.0000001"  # times the unedited model's: a collapse
NOWHERE = "http://127.0.0.1:9"
CONFIG = {"method": "rome", "model": "tiny"}
KILLED = """
import os, signal, sys, time
from pathlib import Path
from afteredit.record.settings import Mode, TrackerSettings
from afteredit.record.tracking.tracker import Tracker

folder, n_edits, held = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
config = {"method": "rome", "model": "tiny"}
tracker = Tracker(TrackerSettings(mode=Mode.offline), folder, "killed", config, "abc123", held, held)
for n in range(n_edits + 1):
    tracker.checkpoint({"n_edits": n, "drift/perplexity": 20.0 + n})
time.sleep(1.5)  # an edit's: W&B writes what it is given within a second
os.kill(os.getpid(), signal.SIGKILL)
"""


def the_run(runs: Path) -> Path:
    (folder,) = (path.parent for path in runs.glob("*/edits.jsonl"))
    return folder


def rows_of(folder: Path) -> list[dict]:
    (path,) = folder.glob("results-*.jsonl")
    return [{k: v for k, v in row.items() if not k.startswith(("time/", "memory/"))} for row in Lines(path).records]


def tracked_id(folder: Path) -> str:
    (run_id,) = {ids["id"] for ids in json.loads((folder / "environment.json").read_text())["wandb"]}
    return run_id


def wait_until(come: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not come():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_server_that_is_killed_in_the_middle_gets_the_whole_run_from_one_sync(
    server, own_wandb, fixed, tmp_path, monkeypatch, capsys
):
    own_wandb(server.url)
    monkeypatch.setenv("WANDB__FILE_STREAM_TRANSMIT_INTERVAL", "0.1")
    runs, before = tmp_path / "runs", []
    append = Results.append

    def dying(self, row, samples):
        append(self, row, samples)
        if row["n_edits"] == 1:
            wait_until(lambda: server.stored(tracked_id(the_run(runs))))
            server.kill()
            before.extend(server.stored(tracked_id(the_run(runs))))

    with monkeypatch.context() as patch:
        patch.setattr(Results, "append", dying)
        patch.setenv("WANDB_FINISH_TIMEOUT", "1")
        for client in ("FILE_STREAM", "FILE_TRANSFER", "GRAPHQL"):
            patch.setenv(f"WANDB_X_{client}_RETRY_MAX", "1")
        assert main([*fixed, "n_edits=3", f"runs={runs}"]) == 0
    folder = the_run(runs)
    (online,) = (folder / "wandb").glob("run-*")
    assert f"wandb sync --include-online {online}\n" in capsys.readouterr().out
    server.start()
    assert 0 < len(before) < len(rows_of(folder)[0]) * 2  # a part of the run was there
    server.wandb(tmp_path, "sync", "--include-online", str(online))
    server.holds_once(tracked_id(folder), folder)
    own_wandb(server.url)  # and what a sync does not send, the artifact, comes with the same command again
    assert main([*fixed, "n_edits=3", f"runs={runs}"]) == 0
    server.holds_once(tracked_id(folder), folder)
    kept = server.artifact(f"results-{tracked_id(folder)}")
    assert (kept / "edits.jsonl").read_bytes() == (folder / "edits.jsonl").read_bytes()


def test_a_server_that_comes_back_during_the_run_gets_the_whole_run_without_a_sync(
    server, own_wandb, fixed, tmp_path, monkeypatch, capsys
):
    own_wandb(server.url)
    monkeypatch.setenv("WANDB__FILE_STREAM_TRANSMIT_INTERVAL", "0.1")
    runs, append = tmp_path / "runs", Results.append

    def away_for_an_edit(self, row, samples):
        append(self, row, samples)
        if row["n_edits"] == 1:
            server.kill()
        if row["n_edits"] == 2:
            server.start()

    with monkeypatch.context() as patch:
        patch.setattr(Results, "append", away_for_an_edit)
        assert main([*fixed, "n_edits=3", "seed=1", f"runs={runs}"]) == 0
    folder = the_run(runs)
    assert "wandb sync" not in capsys.readouterr().out
    server.holds_once(tracked_id(folder), folder)
    assert server.state()["runs"][tracked_id(folder)]["state"] == "finished"


def test_a_run_that_failed_does_not_get_the_numbers_of_the_next_one_in_its_process(server, own_wandb, tmp_path):
    own_wandb(server.url)
    for name, perplexity in (("one", 1.0), ("two", 2.0)):
        folder = tmp_path / name
        folder.mkdir()
        tracker = Tracker(TrackerSettings(), folder, name, CONFIG, "abc123")
        tracker.checkpoint({"n_edits": 0, "drift/perplexity": perplexity})
    tracker.fail()
    assert sorted(server.stored("one")) == [("drift/perplexity", 1, 1.0), ("n_edits", 1, 0.0)]
    assert sorted(server.stored("two")) == [("drift/perplexity", 1, 2.0), ("n_edits", 1, 0.0)]
    assert server.state()["runs"]["two"]["state"] == "failed"


def test_without_any_server_the_run_is_offline_and_its_results_are_the_same(
    own_wandb, fixed, tmp_path, monkeypatch, capsys
):
    own_wandb(NOWHERE)
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "1")
    for runs, tracker in (("away", "tracker=wandb"), ("none", "tracker=none")):
        assert main([*fixed, "n_edits=2", BARELY_WORSE, tracker, f"runs={tmp_path}/{runs}"]) == 0
    out = capsys.readouterr().out
    assert "tracked offline, sync it later" in " ".join(out.split())
    assert "was not given" not in out  # though it collapsed
    away, none = (the_run(tmp_path / runs) for runs in ("away", "none"))
    assert rows_of(away) == rows_of(none)
    assert not (none / "wandb").exists()
    (offline,) = (away / "wandb").glob("offline-run-*")
    assert f"wandb leet {offline}\n" in out and f"wandb sync {offline}\n" in out
    looked = subprocess.run([sys.executable, "-m", "wandb", "leet", "inspect", "--summary", str(offline)],
                            capture_output=True, text=True, timeout=60)  # fmt: skip
    assert looked.returncode == 0 and "drift/perplexity" in looked.stdout
    first, *later = rows_of(away)
    collapsed = next(row["n_edits"] for row in later if row["drift/perplexity"] > first["drift/perplexity"])
    assert re.search(r"summary/collapse\W+(\d+)", looked.stdout)[1] == str(collapsed)


def test_several_offline_starts_are_synced_in_any_order(made_offline, server, tmp_path):
    """The run was begun, went on, and was measured more often: three directories, one run, each number once."""
    shutil.copytree(made_offline, tmp_path / "run")
    folder = tmp_path / "run"
    starts = sorted((folder / "wandb").glob("offline-run-*"))
    assert len(starts) == 3
    said = [server.wandb(tmp_path, "sync", str(starts[start])) for start in (2, 0, 1)]
    assert sum("Skipped 1 synced run" in text for text in said) == 2  # the last one holds what the others do
    server.holds_once(tracked_id(folder), folder)
    assert server.state()["runs"][tracked_id(folder)]["summary"]["n_edits"] == 4


def test_starts_that_were_killed_are_synced_in_any_order(server, tmp_path):
    """Killed after 2 edits, after 4, with a part of what the run directory held, and after it had gone on."""
    for n_edits, held in ((2, 0), (4, 2), (1, 4), (5, 4)):
        begin_and_kill(tmp_path / "run", n_edits, held)
    starts = sorted((tmp_path / "run" / "wandb").glob("offline-run-*"))
    assert len(starts) == 4
    for start in (3, 0, 2, 1):
        server.wandb(tmp_path, "sync", str(starts[start]))
    stored = server.stored("killed")
    assert len(stored) == len({(key, step) for key, step, _ in stored})
    whole = {(2 * n + 1, 20.0 + n) for n in range(6)}
    assert {(step, value) for key, step, value in stored if key == "drift/perplexity"} == whole


def begin_and_kill(folder: Path, n_edits: int, held: int) -> None:
    """A start that tracks what a run directory with `held` edits would send up to `n_edits`, and is killed."""
    folder.mkdir(exist_ok=True)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(folder), str(n_edits), str(held)], timeout=60)
    assert killed.returncode == -signal.SIGKILL


@pytest.fixture(scope="module")
def made_offline(fixed, tmp_path_factory) -> Path:
    import wandb

    runs = tmp_path_factory.mktemp("runs")
    for changed in (["n_edits=2"], ["n_edits=4", "eval_every=2"], ["n_edits=4"]):
        assert main([*fixed, "tracker.mode=offline", *changed, f"runs={runs}"]) == 0
    wandb.teardown()
    return the_run(runs)
