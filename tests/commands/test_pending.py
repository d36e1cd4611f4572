"""Checkpoints that a run leaves are measured by other processes, as the run itself would have, on a tiny Llama."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

from afteredit.commands.rebuild import RebuiltRun
from afteredit.launch.command_line import compose
from afteredit.launch.stored_config import for_tracking, tracking_of
from afteredit.record import run_directory
from afteredit.record.environment import Environment
from afteredit.run import main
from afteredit.store.checked_lines import Lines
from afteredit.store.errors import BadInput
from afteredit.store.locks.lease import claim
from afteredit.store.locks.of_a_run import claim_checkpoint, hold
from afteredit.tests.tiny.forked import begin_run
from afteredit.tests.whole.test_kill import history, left_by, summary

LATER = "measure=later"


@pytest.fixture(autouse=True)
def short_texts_for_fluency():
    """None here: whole texts, as processes of their own and the fixtures of this module write them."""


@pytest.fixture(scope="module")
def place(tmp_path_factory, save_tiny_llama) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny_llama(folder / "model")
    (folder / "text.txt").write_text("The old town has a market, and people come to buy fish and bread.\n" * 30)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AFTEREDIT_CACHE", str(folder / "cache"))
        patch.setenv("COLUMNS", "500")
        patch.delenv("WANDB_SWEEP_ID", raising=False)
        yield folder


@pytest.fixture(scope="module")
def command(place, few_facts) -> list[str]:
    return ["model=hf", f"model.source={place}/model", f"method.second_moment_text={place}/text.txt",
            "method.tokens_per_key_dim=2", "method.layer=1", "method.value_steps=3", "method.contexts_short=2",
            "method.contexts_long=0", "held_out_tokens=64", "device=cpu", "task=[sentiment]", "limit=3", "n_edits=5",
            "eval_every=2", "eval_at=[1]", few_facts]  # fmt: skip


@pytest.fixture(scope="module")
def straight(place, command) -> dict:
    """What a run leaves that measures itself."""
    assert main([*command, "tracker=none", f"runs={place}/straight"]) == 0
    return left_by(next((place / "straight").iterdir()))


def told(folder: Path) -> dict:
    """The summary that W&B was told of a run, but for seconds and bytes; of a table its size."""
    (start,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    values = {name: value for name, value in summary(start).items()
              if not name.startswith(("_", "time/", "memory/", "summary/time/"))}  # fmt: skip
    return {name: (value["nrows"], value["ncols"]) if isinstance(value, dict) and "nrows" in value else value
            for name, value in values.items()}  # fmt: skip


def rows_in_order(left: dict) -> dict:
    """Rows may be stored in another order, and texts in another order of their lines."""
    files = {name: content for name, content in left["files"].items() if name != "texts.jsonl"}
    texts = {name: text for line in left["files"]["texts.jsonl"].splitlines()
             for name, text in json.loads(line)["texts"].items()}  # fmt: skip
    return left | {"rows": sorted(left["rows"], key=lambda row: row["n_edits"]), "files": files, "texts": texts}


def edited(place: Path, command: list[str], runs: str, *more: str) -> Path:
    """Returns the directory of a run whose checkpoints are pending."""
    assert main([*command, LATER, "tracker.mode=offline", *more, f"runs={place}/{runs}"]) == 0
    return next((place / runs).iterdir())


def test_the_rows_are_those_that_the_run_itself_would_have_written(place, command, straight, capsys):
    folder = edited(place, command, "later")
    said = capsys.readouterr().out
    assert "5 checkpoints are left" in said and f"replay.run={folder} replay.pending=true" in said
    assert not list(folder.glob("results-*")) and not (folder / "curves.png").exists()
    assert len(Lines(next(folder.glob("immediate-*.jsonl"))).records) == 5  # measured while editing
    own = compose([*command, LATER, "tracker.mode=offline", f"runs={place}/later"])
    assert tracking_of(folder, Environment(folder)) == json.loads(json.dumps(for_tracking(own)))
    assert main([f"replay.run={folder}", "replay.pending=true", f"model.source={place}/model"]) == 0
    said = capsys.readouterr().out
    assert said.count("identical to the run's") == 5 and "not identical" not in said
    assert rows_in_order(left_by(folder)) == rows_in_order(straight)
    assert (folder / "curves.png").exists() and not list((folder / "leases").iterdir())
    (start,) = folder.glob("wandb/offline-run-*/run-*.wandb")  # by who measured, under the run's own keys
    assert set(history(start)) == {1, 2, 3, 4, 5, 6, 8, 9, 10, 11}
    assert main([*command, "tracker=none", f"runs={place}/later"]) == 0  # the run's own command has nothing to do
    assert rows_in_order(left_by(folder)) == rows_in_order(straight)


def test_who_measures_the_last_tells_wandb_the_summary_of_a_straight_run(place, command, monkeypatch):
    """What is retained of abilities, which three rows would not tell from chance; the edits and the answers."""
    monkeypatch.setattr(run_directory, "measurable", lambda samples, chance: list(chance))
    few = ("n_edits=2", "eval_at=[]", "tracker.mode=offline")
    assert main([*command, *few, f"runs={place}/told_straight"]) == 0
    folder = edited(place, command, "told_later", *few)
    assert main([f"replay.run={folder}", "replay.pending=true", f"model.source={place}/model"]) == 0
    by_itself = told(next((place / "told_straight").iterdir()))
    assert told(folder) == by_itself
    assert {"summary/retained/left", "summary/sentiment/area"} <= set(by_itself)
    assert by_itself["edits"][0] == 2 and by_itself["answers"][0] == 3


def test_workers_killed_at_random_while_the_run_is_edited_lose_nothing(place, command, straight, tmp_path):
    """Two at a time; one is killed and another begun in its place, three times over."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment = kept | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    chance, runs = random.Random(0), tmp_path / "runs"

    def begin(name: str, *arguments: str):
        return begin_run([*arguments, "tracker=none"], environment, tmp_path / name)

    editor = begin("editor", *command, LATER, f"runs={runs}")
    while not list(runs.glob("*/config.yaml")):
        assert editor.is_alive() or editor.exitcode == 0, (tmp_path / "editor").read_text()
        time.sleep(0.01)
    (folder,) = runs.iterdir()
    worker = (f"replay.run={folder}", "replay.pending=true", "replay.lease_s=1", f"model.source={place}/model")
    workers = {name: begin(name, *worker) for name in ("worker0", "worker1")}
    for number in range(2, 5):
        time.sleep(chance.uniform(0.5, 2.5))
        name = chance.choice(list(workers))
        victim = workers.pop(name)
        if victim.is_alive():
            os.killpg(victim.pid, signal.SIGKILL)
        victim.join()
        workers[f"worker{number}"] = begin(f"worker{number}", *worker)
    for process in (editor, *workers.values()):
        process.join(timeout=120)
    said = {name: (tmp_path / name).read_text() for name in ("editor", *workers)}
    assert [process.exitcode for process in (editor, *workers.values())] == [0, 0, 0], said
    (results,) = folder.glob("results-*.jsonl")
    assert sorted(row["n_edits"] for row in Lines(results).records) == [0, 1, 2, 4, 5]  # each once
    assert rows_in_order(left_by(folder)) == rows_in_order(straight)
    assert (folder / "curves.png").exists()


@pytest.mark.parametrize("died", [True, False])
def test_a_row_that_another_process_has_stored_meanwhile_is_not_stored_again(place, command, monkeypatch, died):
    """As after a pause so long that the lease was taken over.  The other process stored the last row, so it ends the
    run; where it died at that, this one does."""
    folder = edited(place, command, f"paused_{died}", "n_edits=1", "eval_at=[]", "eval_every=1")
    measured = RebuiltRun.measured

    def measured_here_and_elsewhere(rebuilt, n_edits):
        row = measured(rebuilt, n_edits)
        if n_edits == 1:
            lease = claim(folder / "leases" / f"{rebuilt.run.results.digest}-end", 0.5)
            rebuilt.run.add_checkpoint(n_edits, *row)
            lease._released.set() if died else lease.release()  # the dead renew nothing
        return row

    monkeypatch.setattr(RebuiltRun, "measured", measured_here_and_elsewhere)
    assert main([f"replay.run={folder}", "replay.pending=true", f"model.source={place}/model"]) == 0
    (results,) = folder.glob("results-*.jsonl")
    assert [row["n_edits"] for row in Lines(results).records] == [0, 1]
    assert (folder / "curves.png").exists() == died and not list((folder / "leases").iterdir())


def test_what_cannot_go_together_is_refused(place, command, capsys, monkeypatch):
    folder = edited(place, command, "refused", "n_edits=1", "eval_at=[]", "eval_every=1", "task.sentiment.title=Mine")
    pending = [f"replay.run={folder}", "replay.pending=true", f"model.source={place}/model"]
    capsys.readouterr()

    def refused(arguments: list[str]) -> str:
        assert main(arguments) == 2
        return " ".join(capsys.readouterr().err.split())

    assert "task sentiment that is not as conf/task has it" in refused(pending)
    monkeypatch.setattr("afteredit.store.locks.of_a_run.STARTING", 0.1)
    pending = [*pending, "task=[sentiment]", "task.sentiment.title=Mine"]
    lock = hold(folder)
    assert "in use by a process that measures it itself" in refused(pending)
    lock.release()
    lease = claim_checkpoint(folder, "0123abcd", 1, 60)
    own = [*command, "n_edits=1", "eval_at=[]", "eval_every=1", "task.sentiment.title=Mine", "tracker=none"]
    assert "is being measured by replay.pending=true" in refused([*own, f"runs={place}/refused"])
    assert main([*own, LATER, f"runs={place}/refused"]) == 0  # leaves them as they are
    lease.release()


def test_wrong_keys_are_refused_at_once(monkeypatch):
    cases = {"on_collapse=stop": ["on_collapse=stop", LATER], "without replay.run": ["replay.pending=true"],
             "now, later": ["measure=never"]}  # fmt: skip
    for said, arguments in cases.items():
        with pytest.raises(BadInput, match=said):
            compose(arguments)
    monkeypatch.setenv("WANDB_SWEEP_ID", "x")
    with pytest.raises(BadInput, match="measure=later in a W&B sweep"):
        compose([LATER])
