"""`wandb sweep`, then agents: every number of two grid runs arrives, though one of them was lost on the way and the
other was finished before any agent asked for it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from afteredit.analysis.summary import summarise
from afteredit.edit.journal import Lines
from afteredit.run import main

ROOT = Path(__file__).resolve().parents[2]
CHANCE = 0.1  # so that a random model stands above it, and the summary has something to say


@dataclass
class Swept:
    """What two agents made of `wandb sweep`: the `lost` run's folder and the `finished` one's."""

    server: Any
    lost: Path
    finished: Path
    finished_before: dict[str, bytes]
    lost_before: bytes
    said: str  # by the second agent
    sweep: str = field(default="")

    def run_id(self, folder: Path) -> str:
        """The one id that W&B knows the run by: its agent's."""
        (run_id,) = {ids["id"] for ids in json.loads((folder / "environment.json").read_text())["wandb"]}
        assert run_id in self.server.state()["sweeps"][self.sweep]["runs"]
        return run_id

    def run(self, folder: Path) -> dict:
        return self.server.state()["runs"][self.run_id(folder)]


@pytest.fixture(scope="module")
def swept(make_server, fixed, tmp_path_factory):
    """The sweep of sweep.yaml with other parameters, and what the tiny model needs in its command."""
    place, server = tmp_path_factory.mktemp("sweep"), make_server(lost_after=1.0)
    runs, home = place / "runs", place / "home"
    home.mkdir()
    command = [*(override for override in fixed if not override.startswith("task=")), f"runs={runs}", "n_edits=5",
               f"task.sentiment.chance={CHANCE}", "limit=8", "tracker.tags=[grid]"]  # fmt: skip
    assert main([*command, "task=[sentiment]", "seed=2", "edits.order=shuffled", "tracker=none"]) == 0
    (finished,) = folders(runs)
    finished_before = {path.name: path.read_bytes() for path in finished.glob("*.jsonl")}

    config = yaml.safe_load((ROOT / "sweep.yaml").read_text())
    config["command"][-1:-1] = command
    nested = {"parameters": {"order": {"value": "shuffled"}}}
    config["parameters"] = {"method": {"values": ["rome"]}, "seed": {"values": [1, 2]}, "edits": nested,
                            "task": {"value": ["sentiment"]}, "held_out": {"value": None}}  # fmt: skip
    (place / "sweep.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    path = re.search(r"wandb agent (\S+)", server.wandb(home, "sweep", str(place / "sweep.yaml")))[1]

    agent = subprocess.Popen([sys.executable, "-m", "wandb", "agent", path], env=server.environment(home), cwd=ROOT,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    while not (lost := [folder for folder in folders(runs) if folder != finished]) or n_lines(lost[0]) < 2:
        assert agent.poll() is None
        time.sleep(0.02)
    kill_with_children(agent)
    lost_before = (lost[0] / "edits.jsonl").read_bytes()
    said = server.wandb(home, "agent", path)
    return Swept(server, lost[0], finished, finished_before, lost_before, said, path.rpartition("/")[2])


def folders(runs: Path) -> list[Path]:
    return sorted(path.parent for path in runs.glob("*/edits.jsonl"))


def n_lines(folder: Path) -> int:
    return len((folder / "edits.jsonl").read_bytes().splitlines())


def kill_with_children(process: subprocess.Popen) -> None:
    own = psutil.Process(process.pid)
    for one in [own, *own.children(recursive=True)]:
        one.kill()
    process.wait(timeout=20)


def rows_of(folder: Path) -> list[dict]:
    (path,) = folder.glob("results-*.jsonl")
    return Lines(path).records


def test_every_number_of_the_results_files_is_on_the_server_once(swept):
    for folder in (swept.lost, swept.finished):
        assert [row["n_edits"] for row in rows_of(folder)] == list(range(6))
        swept.server.holds_once(swept.run_id(folder), folder)
    assert {swept.run(folder)["state"] for folder in (swept.lost, swept.finished)} == {"finished"}


def test_a_lost_run_is_handed_out_again_with_its_whole_config_and_goes_on(swept):
    assert "Agent received command: resume" in swept.said
    assert "_target_" in swept.said and "_wandb=" in swept.said  # the arguments that no Hydra could read
    assert swept.run(swept.lost)["begun"] == 2
    assert 0 < len(swept.lost_before.splitlines()) < 5
    assert (swept.lost / "edits.jsonl").read_bytes().startswith(swept.lost_before[: swept.lost_before.rfind(b"\n") + 1])


def test_a_run_that_was_finished_before_is_not_made_again(swept):
    assert {path.name: path.read_bytes() for path in swept.finished.glob("*.jsonl")} == swept.finished_before
    assert "finished already" in swept.said


def test_runs_carry_resolved_config_group_tags_and_commit(swept):
    for folder, seed in ((swept.lost, 1), (swept.finished, 2)):
        run = swept.run(folder)
        config = {key: node["value"] for key, node in run["config"].items()}
        assert config["resolved"] == yaml.safe_load((folder / "config.yaml").read_text())
        assert (config["method"], config["model"], config["seed"], config["task"]) == (
            "rome",
            "hf",
            seed,
            ["sentiment"],
        )
        assert (run["groupName"], run["tags"], run["sweep"]) == ("rome-hf", ["grid"], swept.sweep)
        commit = json.loads((folder / "environment.json").read_text())["commit"]
        assert run["commit"] == config["commit"] == commit


def test_n_edits_is_the_axis_of_every_metric(swept):
    axes = swept.run(swept.lost)["config"]["_wandb"]["value"]["m"]
    assert {axis.get("1") or axis["2"] for axis in axes} == {
        "n_edits",
        "*",
    }  # 1: name, 2: glob, 5: 1 + index of its axis
    (every,) = (axis for axis in axes if axis.get("2") == "*")
    assert axes[every["5"] - 1]["1"] == "n_edits"


def test_the_summary_is_what_the_rows_come_down_to(swept):
    for folder in (swept.lost, swept.finished):
        expected = summarise(rows_of(folder), {"sentiment": CHANCE})
        assert {"summary/retained/area", "summary/sentiment/left"} <= set(expected)
        found = {key: value for key, value in swept.run(folder)["summary"].items() if key.startswith("summary/")}
        assert found == pytest.approx(expected)


def test_results_samples_config_and_journal_go_up_byte_for_byte(swept):
    for folder in (swept.lost, swept.finished):
        artifact = swept.server.artifact(f"results-{swept.run_id(folder)}")
        patterns = ("results-*.jsonl", "samples/*.parquet", "config.yaml", "edits.jsonl")
        names = {path.relative_to(folder) for pattern in patterns for path in folder.glob(pattern)}
        assert len(names) == 9
        assert {path.relative_to(artifact) for path in artifact.rglob("*") if path.is_file()} - {
            Path("manifest.json")
        } == names
        assert all((artifact / name).read_bytes() == (folder / name).read_bytes() for name in names)


def test_the_table_shows_each_edit_and_what_was_generated_before_and_after_it(swept):
    (path,) = (swept.server.folder / "files").rglob(f"{swept.run_id(swept.lost)}/media/table/*.json")
    table = json.loads(path.read_text())
    assert table["columns"] == ["n_edits", "prompt", "target", "before", "after"]
    records = Lines(swept.lost / "edits.jsonl").records
    expected = []
    for record in records:
        (request,), (said,) = record["requests"], record["generated"]
        prompt = request["prompt"].format(request["subject"])
        expected.append([record["n_edits"], prompt, request["target_new"], said["before"], said["after"]])
    assert table["data"] == expected
    assert any(before != after for *_, before, after in expected)
