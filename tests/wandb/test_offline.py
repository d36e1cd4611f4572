"""A server that dies, is not there, or comes later: the run does not mind, and `wandb sync` makes W&B whole."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from afteredit.edit.journal import Lines
from afteredit.evaluate.results import Results
from afteredit.run import main

NOWHERE = "http://127.0.0.1:9"


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


def test_without_any_server_the_run_is_offline_and_its_results_are_the_same(
    own_wandb, fixed, tmp_path, monkeypatch, capsys
):
    own_wandb(NOWHERE)
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "1")
    for runs, tracker in (("away", "tracker=wandb"), ("none", "tracker=none")):
        assert main([*fixed, "n_edits=2", tracker, f"runs={tmp_path}/{runs}"]) == 0
    out = capsys.readouterr().out
    assert "tracked offline, sync it later" in " ".join(out.split())
    away, none = (the_run(tmp_path / runs) for runs in ("away", "none"))
    assert rows_of(away) == rows_of(none)
    assert not (none / "wandb").exists()
    (offline,) = (away / "wandb").glob("offline-run-*")
    assert f"wandb leet {offline}\n" in out and f"wandb sync {offline}\n" in out
    looked = subprocess.run([sys.executable, "-m", "wandb", "leet", "inspect", "--summary", str(offline)],
                            capture_output=True, text=True, timeout=60)  # fmt: skip
    assert looked.returncode == 0 and "drift/perplexity" in looked.stdout


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_several_offline_starts_are_synced_in_any_order(order, made_offline, server, tmp_path):
    """The run was begun, went on, and was measured more often: three directories, one run, each number once."""
    shutil.copytree(made_offline, tmp_path / "run")
    folder = tmp_path / "run"
    starts = sorted((folder / "wandb").glob("offline-run-*"))
    assert len(starts) == 3
    said = [server.wandb(tmp_path, "sync", str(starts[start])) for start in order]
    assert sum("Skipped 1 synced run" in text for text in said) == 2  # the last one holds what the others do
    server.holds_once(tracked_id(folder), folder)
    assert server.state()["runs"][tracked_id(folder)]["summary"]["n_edits"] == 4


@pytest.fixture(scope="module")
def made_offline(fixed, tmp_path_factory) -> Path:
    import wandb

    runs = tmp_path_factory.mktemp("runs")
    for changed in (["n_edits=2"], ["n_edits=4", "eval_every=2"], ["n_edits=4"]):
        assert main([*fixed, "tracker.mode=offline", *changed, f"runs={runs}"]) == 0
    wandb.teardown()
    return the_run(runs)
