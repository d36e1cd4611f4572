"""A server (server.py), a tiny model, and what runs and W&B's own commands need to know of both."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from afteredit.evaluate.metrics.editing_success import means
from afteredit.store.checked_lines import Lines

ROOT = Path(__file__).resolve().parents[3]
KEY = "local" + "0" * 40  # openwandb's own
Points = dict[tuple[str, int], float]


class Server:
    """`folder` outlives the process."""

    root = ROOT

    def __init__(self, folder: Path, lost_after: float = 300):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder, self.lost_after, self.url = folder, lost_after, f"http://127.0.0.1:{self.port}"
        folder.mkdir()

    def start(self) -> Server:
        command = [sys.executable, str(Path(__file__).with_name("server.py")), str(self.port), str(self.folder),
                   str(self.lost_after)]  # fmt: skip
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.time() + 60
        while time.time() < deadline:
            try:
                urllib.request.urlopen(self.url, timeout=2)
                return self
            except OSError:
                time.sleep(0.1)
        raise TimeoutError(f"no server at {self.url}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(timeout=20)

    def state(self) -> dict[str, Any]:
        return json.loads((self.folder / "state.json").read_text())

    def graphql(self, operation: str, variables: dict[str, Any]) -> None:
        """Asks as any other client would."""
        asked = json.dumps({"query": f"mutation {operation} {{ x }}", "variables": variables}).encode()
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/graphql", asked, method="POST"), timeout=20)

    def stored(self, run_id: str) -> list[tuple[str, int, float]]:
        """Every number of the run's history that is in the server's own store, as often as it is there."""
        with sqlite3.connect(self.folder / "openwandb.db") as database:
            return database.execute("SELECT key, step, value FROM metrics WHERE run_id = ?", (run_id,)).fetchall()

    def holds_once(self, run_id: str, folder: Path) -> None:
        """Each number of the run's files, and nothing else."""
        stored = self.stored(run_id)
        assert len(stored) == len({(key, step) for key, step, _ in stored}), "a number is there twice"
        found, expected = {(key, step): value for key, step, value in stored}, numbers_of(folder)
        assert set(found) == set(expected)
        assert all(found[point] == pytest.approx(expected[point], rel=1e-12, abs=1e-12) for point in expected)

    def environment(self, home: Path) -> dict[str, str]:
        """Of a process that knows this server, and whose `python` is the one that runs the tests."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
        return kept | {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY, "WANDB_DIR": str(home), "PATH": path,
                       "WANDB__FILE_STREAM_TRANSMIT_INTERVAL": "0.1"}  # fmt: skip

    def wandb(self, home: Path, *arguments: str) -> str:
        """What the command says."""
        command = [sys.executable, "-m", "wandb", *arguments]
        done = subprocess.run(
            command, env=self.environment(home), capture_output=True, text=True, timeout=150, cwd=ROOT
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def artifact(self, name: str) -> Path:
        """The folder of the newest one of this name.  All its files have come."""
        number, artifact = [(n, a) for n, a in self.state()["artifacts"].items() if a["name"] == name][-1]
        assert artifact["committed"] and artifact["type"] == "results"
        folder = self.folder / "artifacts" / number
        came = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        assert came - {"manifest.json"} == set(artifact["files"])
        return folder


@pytest.fixture(scope="module")
def make_server(tmp_path_factory):
    """make_server(lost_after=300.0): one that lasts as long as the module's tests."""
    made: list[Server] = []

    def make(lost_after: float = 300.0) -> Server:
        made.append(Server(tmp_path_factory.mktemp("server") / "data", lost_after).start())
        return made[-1]

    yield make
    for server in made:
        server.kill()


@pytest.fixture(scope="module")
def server(make_server) -> Server:
    return make_server()


@pytest.fixture(scope="module")
def place(tmp_path_factory, save_tiny_llama) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny_llama(folder / "model")
    return folder


@pytest.fixture(scope="module")
def fixed(place, few_facts) -> list[str]:
    """The overrides of every run here."""
    return ["model=hf", f"model.source={place}/model", "method.second_moment=identity", "method.layer=1",
            "method.value_steps=3", "method.contexts_short=0", "method.contexts_long=0", "task=[sentiment]", "limit=3",
            "held_out_tokens=64", "eval_every=1", "device=cpu", few_facts]  # fmt: skip


@pytest.fixture
def own_wandb(monkeypatch, tmp_path):
    """own_wandb(url): this process's next runs know this server and no other setting."""
    import wandb

    def to(url: str) -> None:
        wandb.teardown()
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            monkeypatch.delenv(name)
        for name, value in {"WANDB_BASE_URL": url, "WANDB_API_KEY": KEY, "HOME": str(tmp_path)}.items():
            monkeypatch.setenv(name, value)

    yield to
    wandb.teardown()


@pytest.fixture(scope="session")
def records_of():
    """records_of(folder) -> the records of the journal, each with its immediate success."""
    return _records_of


def _records_of(folder: Path) -> list[dict[str, Any]]:
    (path,) = folder.glob("immediate-*.jsonl")
    immediate = {row["batch"]: row for row in Lines(path).records}
    return [{**record, **immediate[i]} for i, record in enumerate(Lines(folder / "edits.jsonl").records)]


def numbers_of(folder: Path) -> Points:
    """Every number of the results file and of the journal, at the step that it is tracked under."""
    points: Points = {}
    (results,) = folder.glob("results-*.jsonl")
    rows = Lines(results).records
    chance = {f"chance/{name}": level for name, level in rows[0]["chance"].items()}
    for row in rows:
        points |= {(key, 2 * row["n_edits"] + 1): level for key, level in chance.items()}
        points |= {(key, 2 * row["n_edits"] + 1): v for key, v in row.items() if isinstance(v, int | float)}
    for record in _records_of(folder):
        values = {f"edit/{key}": value for key, value in record["diagnostics"].items()}
        values |= means(record["immediate"], "edit/immediate")
        values |= {"time/edit_s": record["edit_s"], "n_edits": record["n_edits"]}
        points |= {(key, 2 * record["n_edits"]): value for key, value in values.items()}
    return points
