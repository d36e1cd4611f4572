"""`wandb sweep`, then agents: every number of two grid runs arrives, though one of them was stopped and lost on the way
and the other was finished before any agent asked for it; and W&B's public API reads them back."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import yaml

from afteredit.analysis import report
from afteredit.analysis.__main__ import main as analyse
from afteredit.analysis.numbers.run_summary import summarise
from afteredit.analysis.read.run import Run
from afteredit.analysis.read.run_folders import read_run
from afteredit.analysis.read.wandb_runs import read_project
from afteredit.run import main
from afteredit.store.checked_lines import Lines

ROOT = Path(__file__).resolve().parents[3]
CHANCE = 0.1  # so that a random model stands above it, and the summary has something to say
N_EDITS = 6


@dataclass
class Swept:
    """What three agents made of `wandb sweep`: the `lost` run's folder and the `finished` one's."""

    server: Any
    home: Path
    path: str  # of the sweep: ENTITY/PROJECT/ID
    finished: Path
    finished_before: dict[str, bytes]
    lost: Path
    states: list[str] = field(default_factory=list)  # of the lost run, after each agent's death
    journals: list[bytes] = field(default_factory=list)  # its edits.jsonl, at the same times
    said: list[str] = field(default_factory=list)  # by the second agent and by the last
    crashed: list[Run] = field(default_factory=list)  # the project, read while the run was lost

    @property
    def sweep(self) -> str:
        return self.path.rpartition("/")[2]

    def run_id(self, folder: Path) -> str:
        """The agent's: W&B knows the run by it."""
        run_id = ids_of(folder)[-1]
        assert run_id in self.server.state()["sweeps"][self.sweep]["runs"]
        return run_id

    def run(self, folder: Path) -> dict:
        return self.server.state()["runs"][self.run_id(folder)]


@pytest.fixture(scope="module")
def swept(make_server, fixed, tmp_path_factory):
    """The sweep of sweep.yaml with other parameters, and what the tiny model needs in its command.  The first run is
    stopped (SIGTERM) under one agent, killed together with the next one, and goes to its end under the last."""
    import wandb

    place, server = tmp_path_factory.mktemp("sweep"), make_server(lost_after=1.0)
    runs, home = place / "runs", place / "home"
    home.mkdir()
    command = [*(override for override in fixed if not override.startswith("task=")), f"runs={runs}", "limit=8",
               f"n_edits={N_EDITS}", f"task.sentiment.chance={CHANCE}", "tracker.tags=[grid]"]  # fmt: skip
    first = ["task=[sentiment]", "seed=2", "edits.order=shuffled", "tracker.mode=offline"]
    assert main([*command, *first]) == 0
    wandb.teardown()
    (finished,) = folders(runs)
    finished_before = {path.name: path.read_bytes() for path in finished.glob("*.jsonl")}

    config = yaml.safe_load((ROOT / "sweep.yaml").read_text())
    config["command"][-1:-1] = command
    nested = {"parameters": {"order": {"value": "shuffled"}}}
    config["parameters"] = {"method": {"values": ["rome"]}, "seed": {"values": [1, 2]}, "edits": nested,
                            "task": {"value": ["sentiment"]}, "held_out": {"value": None},
                            "tracker.log_updates": {"value": True}}  # fmt: skip
    (place / "sweep.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    path = re.search(r"wandb agent (\S+)", server.wandb(home, "sweep", str(place / "sweep.yaml")))[1]

    agent = begin_agent(server, home, path)
    wait_until(lambda: set(folders(runs)) - {finished}, agent)
    (lost,) = set(folders(runs)) - {finished}
    swept = Swept(server, home, path, finished, finished_before, lost)
    wait_until(lambda: n_lines(lost) >= 1, agent)
    (run,) = runs_of(agent)
    agent.suspend()  # else it would itself be given what it was asked to stop
    run.send_signal(signal.SIGTERM)
    wait_until(lambda: swept.run(lost)["state"] != "running", agent)
    let_die(agent, swept)

    agent, held = begin_agent(server, home, path), n_lines(lost)
    wait_until(lambda: n_lines(lost) > held, agent)
    (run,) = runs_of(agent)
    run.suspend()  # W&B's own process sends on
    wait_until(lambda: any(key == "drift/perplexity" for key, *_ in server.stored(swept.run_id(lost))), agent)
    let_die(agent, swept)
    swept.crashed = in_project(server, path)
    swept.said.append(server.wandb(home, "agent", path))
    return swept


def begin_agent(server, home: Path, path: str) -> psutil.Popen:
    with (home / "agent.log").open("w") as log:
        return psutil.Popen([sys.executable, "-m", "wandb", "agent", path], env=server.environment(home), cwd=ROOT,
                            stdout=log, stderr=log)  # fmt: skip


def runs_of(agent: psutil.Popen) -> list[psutil.Process]:
    return [child for child in agent.children() if "run.py" in child.cmdline()]


def let_die(agent: psutil.Popen, swept: Swept) -> None:
    for one in [agent, *agent.children(recursive=True)]:
        one.kill()
    agent.wait(timeout=20)
    swept.states.append(swept.run(swept.lost)["state"])
    swept.journals.append((swept.lost / "edits.jsonl").read_bytes())
    swept.said.append((swept.home / "agent.log").read_text())


def wait_until(come, agent: psutil.Popen) -> None:
    deadline = time.monotonic() + 120
    while not come():
        assert agent.is_running() and time.monotonic() < deadline
        time.sleep(0.02)


def in_project(server, path: str) -> list[Run]:
    """The sweep's project, as this process reads it through W&B's public API."""
    with asking(server):
        return read_project(path.rpartition("/")[0])


@contextmanager
def asking(server) -> Iterator[pytest.MonkeyPatch]:
    """Lets W&B's public API ask the server, inside."""
    import wandb

    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        for name in ("WANDB_BASE_URL", "WANDB_API_KEY"):
            patch.setenv(name, server.environment(Path())[name])
        wandb.teardown()
        yield patch
        wandb.teardown()


def ids_of(folder: Path) -> list[str]:
    """Of every W&B run that the run was sent to, in that order, each once."""
    return list(dict.fromkeys(ids["id"] for ids in json.loads((folder / "environment.json").read_text())["wandb"]))


def folders(runs: Path) -> list[Path]:
    return sorted(path.parent for path in runs.glob("*/edits.jsonl"))


def n_lines(folder: Path) -> int:
    return len((folder / "edits.jsonl").read_bytes().splitlines())


def rows_of(folder: Path) -> list[dict]:
    (path,) = folder.glob("results-*.jsonl")
    return Lines(path).records


def stored_config(folder: Path) -> dict:
    """The run directory's config as W&B has it: without maps that hold nothing, few-shot texts, and other methods'
    values."""

    def filled(value):
        held = {key: filled(inner) for key, inner in value.items()} if isinstance(value, dict) else value
        return {key: inner for key, inner in held.items() if inner != {}} if isinstance(held, dict) else held

    config = yaml.safe_load((folder / "config.yaml").read_text())
    del config["model"]["edit"]
    for task in config["task"].values():
        task["lm_eval"].pop("fewshot_config", None)
    return filled(config)


def test_every_number_of_the_results_files_is_on_the_server_once(swept):
    for folder in (swept.lost, swept.finished):
        assert [row["n_edits"] for row in rows_of(folder)] == list(range(N_EDITS + 1))
        swept.server.holds_once(swept.run_id(folder), folder)
    assert {swept.run(folder)["state"] for folder in (swept.lost, swept.finished)} == {"finished"}


def test_a_stopped_run_is_handed_out_again_and_goes_on(swept):
    assert swept.states[0] == "preempted"
    assert "Agent received command: resume" in swept.said[1]
    assert swept.journals[1].startswith(swept.journals[0])


def test_a_lost_run_is_handed_out_again_with_its_whole_config_and_goes_on(swept):
    assert swept.states[1] == "running" and "Agent received command: resume" in swept.said[-1]
    assert "_target_" in swept.said[-1] and "_wandb=" in swept.said[-1]  # the arguments that no Hydra could read
    assert swept.run(swept.lost)["begun"] == 3
    before, after = swept.journals[1], (swept.lost / "edits.jsonl").read_bytes()
    assert 0 < len(swept.journals[0].splitlines()) < len(before.splitlines()) < N_EDITS
    assert after.startswith(before[: before.rfind(b"\n") + 1])


def test_a_run_that_was_finished_before_is_not_made_again(swept):
    assert {path.name: path.read_bytes() for path in swept.finished.glob("*.jsonl")} == swept.finished_before
    assert "finished already" in swept.said[-1]


def test_all_ids_are_recorded(swept):
    """W&B knows the run that no agent had by the run directory's name and the evaluation, and by its agent's id."""
    (results,) = swept.finished.glob("results-*.jsonl")
    own, agents = ids_of(swept.finished)
    assert own == f"{swept.finished.name}-{results.stem.partition('-')[2]}"
    assert [*ids_of(swept.lost), agents] == swept.server.state()["sweeps"][swept.sweep]["runs"]


def test_runs_carry_resolved_config_group_tags_and_commit(swept):
    for folder, seed in ((swept.lost, 1), (swept.finished, 2)):
        run = swept.run(folder)
        config = {key: node["value"] for key, node in run["config"].items()}
        assert config["resolved"] == stored_config(folder)
        assert (config["method"], config["model"], config["seed"], config["task"]) == (
            "rome",
            "hf",
            seed,
            ["sentiment"],
        )
        assert (run["groupName"], run["tags"], run["sweep"]) == ("rome-hf", ["grid"], swept.sweep)
        head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT)
        assert run["commit"] == config["commit"]
        assert head.stdout.strip() in run["commit"] if head.returncode == 0 else run["commit"] == "unknown"


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


def test_results_samples_config_journal_and_updates_go_up_byte_for_byte(swept):
    for folder in (swept.lost, swept.finished):
        artifact = swept.server.artifact(f"results-{swept.run_id(folder)}")
        patterns = (
            "results-*.jsonl",
            "immediate-*.jsonl",
            "samples/*",
            "config.yaml",
            "edits.jsonl",
            "updates/*.safetensors",
        )
        names = {path.relative_to(folder) for pattern in patterns for path in folder.glob(pattern)}
        assert len(names) == 2 + (N_EDITS + 1) + 1 + 1 + 1 + N_EDITS
        assert {path.relative_to(artifact) for path in artifact.rglob("*") if path.is_file()} - {
            Path("manifest.json")
        } == names
        assert all((artifact / name).read_bytes() == (folder / name).read_bytes() for name in names)


def test_the_table_shows_each_edit_and_what_was_generated_before_and_after_it(swept, records_of):
    (path,) = (swept.server.folder / "files").rglob(f"{swept.run_id(swept.lost)}/media/table/edits*.json")
    table = json.loads(path.read_text())
    assert table["columns"] == ["n_edits", "prompt", "target", "before", "after"]
    expected = []
    for record in records_of(swept.lost):
        (request,), (said, *_) = record["requests"], record["generated"]
        prompt = request["prompt"].format(request["subject"])
        expected.append([record["n_edits"], prompt, request["target_new"], said["before"], said["after"]])
    assert table["data"] == expected
    assert any(before != after for *_, before, after in expected)


def test_a_table_shows_what_was_said_to_every_question(swept):
    (path,) = (swept.server.folder / "files").rglob(f"{swept.run_id(swept.finished)}/media/table/answers*.json")
    table = json.loads(path.read_text())
    assert table["columns"][:5] == ["ability", "row", "change", "question", "wanted"]
    assert table["columns"][5] == "after 0" and table["columns"][-1] == f"after {N_EDITS}"
    (results,) = swept.finished.glob("results-*.jsonl")
    (run,) = read_run(swept.finished, evaluation=results.stem.removeprefix("results-"))
    first = run.samples[(run.samples["kind"] == "ability") & (run.samples["n_edits"] == 0)]
    assert {(row[1], row[3]) for row in table["data"]} == {
        (f"{doc_id:.0f}", question) for doc_id, question in zip(first["doc_id"], first["question"], strict=True)
    }


def test_the_report_of_a_sweep_has_the_numbers_of_the_run_directories(swept, tmp_path):
    with asking(swept.server) as patch:
        patch.setattr(report, "part_files", list)  # its tables alone
        assert analyse(["report", "--sweep", swept.path, "--out", str(tmp_path / "remote")]) == 0
        assert analyse(["report", str(swept.lost), str(swept.finished), "--out", str(tmp_path / "local")]) == 0
    remote, local = (metrics(tmp_path / name) for name in ("remote", "local"))
    assert len(local) > 2 * (N_EDITS + 1) * 10
    pd.testing.assert_frame_equal(remote, local)


def metrics(report: Path) -> pd.DataFrame:
    (path,) = report.rglob("metrics.csv")
    return pd.read_csv(path).sort_values(["run", "n_edits", "metric"], ignore_index=True)


def test_a_crashed_run_is_read_from_its_history(swept):
    """Before its end there is no artifact."""
    (run,) = swept.crashed
    local = rows_of(swept.lost)[: len(run.rows)]
    beside_numbers = ("weights_sha256", "evaluator", "samples_sha256")
    assert [dict(row) for row in run.rows] == [
        {key: value for key, value in row.items() if key not in beside_numbers} for row in local
    ]
    assert {"measurable", "chance"} <= set(run.rows[0])
    assert run.config == stored_config(swept.lost)
    assert (run.name, run.seed, run.method, run.samples.empty) == (swept.lost.name, 1, "rome", True)
    (results,) = swept.lost.glob("results-*.jsonl")
    assert results.name == f"results-{run.evaluation}.jsonl"
