"""The real model, the real W&B client and a real server on loopback: two edits, and every number arrives."""

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

import pytest

from afteredit.run import main

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def two_facts(tmp_path_factory) -> str:
    """The override that names a file of the two facts that are written, so that no others are measured; each has one
    paraphrase and two neighbours, and no text is written about them, which takes longest."""
    path = tmp_path_factory.mktemp("facts") / "two.jsonl"
    lines = (ROOT / "data" / "facts.jsonl").read_text(encoding="utf-8").splitlines()[:2]
    facts = [json.loads(line) for line in lines]
    for fact in facts:
        kept = {"paraphrases": 1, "neighbourhood": 2, "neighbourhood_targets": 2, "generation_prompts": 0}
        fact |= {field: fact[field][:n] for field, n in kept.items()}
    path.write_text("\n".join(map(json.dumps, facts)), encoding="utf-8")
    return f"edits.file={path}"


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory, two_facts) -> Path:
    """A run directory: two ROME edits of SmolLM2 with the text that is shipped, two abilities, W&B offline."""
    runs = tmp_path_factory.mktemp("runs")
    command = [sys.executable, str(ROOT / "run.py"), "n_edits=2", "eval_every=2", "task=[sentiment,open_qa]", "limit=2",
               "held_out_tokens=128", "method.value_steps=15", "method.contexts_long=2", "method.contexts_short=2",
               "tracker.mode=offline", f"runs={runs}", two_facts]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, cwd=runs)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "wandb sync" in done.stdout and "wandb leet" in done.stdout
    (folder,) = runs.iterdir()
    return folder


@pytest.fixture
def server(tmp_path):
    """(url, database path) of a W&B-compatible server on loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "OPENWANDB_DATA_DIR": str(tmp_path), "OPENWANDB_PORT": str(port)}
    command = [sys.executable, "-m", "uvicorn", "openwandb.server:app", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_for(url)
        yield url, tmp_path / "openwandb.db"
    finally:
        process.terminate()
        process.wait(timeout=20)


def test_a_batch_of_memit_takes_on_the_real_model(tmp_path, two_facts):
    """Two facts in one update of five blocks; the text behind the second moment is short."""
    text = "".join((ROOT / "data" / name).read_text(encoding="utf-8") for name in ("heldout.txt", "dialogue.jsonl"))
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    overrides = ["method=memit", "method.contexts=1", f"method.second_moment_text={tmp_path}/text.txt",
                 "method.tokens_per_key_dim=2", "method.value_steps=15", "n_edits=2", "batch_size=2", "eval_every=2",
                 "task=none", "held_out_tokens=128", "tracker=none", two_facts, f"runs={tmp_path}/runs"]  # fmt: skip
    assert main(overrides) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    last = _rows(folder)[-1]
    assert last["editing/immediate/prob/efficacy"] == last["editing/immediate/generated/efficacy"] == 1.0
    assert last["drift/perplexity"] < 1.1 * _rows(folder)[0]["drift/perplexity"]


def test_the_text_shipped_for_the_second_moment_is_what_the_model_writes():
    """Each shipped token is the one whose interval of the cumulated distribution holds the seeded draw.

    Rows are read as shipped, so that one token at the border of two, which another processor rounds to the other side,
    does not turn all that follow it.  Float32 sums over the vocabulary move a border by some 1e-4.
    """
    import torch

    from afteredit.edit.ingredients.sampled_text import sequences
    from afteredit.launch.command_line import compose

    lm = compose(["model=smollm2"]).model.load("cpu", "float32")
    (shipped,) = (ROOT / "data" / "sampled_text").glob("*.safetensors")
    before = shipped.stat().st_mtime_ns
    ids_BT = torch.tensor(list(sequences(lm, "sampled", 10 * 1536)))
    assert ids_BT.shape == (120, 128) and shipped.stat().st_mtime_ns == before
    generator = torch.Generator().manual_seed(0)
    first_BT = ids_BT[:, :7]
    logits_BTV = lm.logits(lm.forward(first_BT, torch.ones_like(first_BT))).detach()
    for column in range(6):
        cumulated_BV = logits_BTV[:, column].double().softmax(-1).cumsum(-1)
        drawn_B1, token_B1 = torch.rand(120, 1, generator=generator), first_BT[:, column + 1 : column + 2]
        above_B1 = cumulated_BV.gather(1, token_B1)
        below_B1 = torch.where(token_B1 > 0, cumulated_BV.gather(1, (token_B1 - 1).clamp(min=0)), 0.0)
        assert bool((below_B1 - 1e-3 <= drawn_B1).all()) and bool((drawn_B1 <= above_B1 + 1e-3).all())


def test_two_edits_take_and_leave_everything_a_reader_needs(finished_run):
    rows = _rows(finished_run)
    assert [row["n_edits"] for row in rows] == [0, 2]
    assert rows[-1]["editing/retained/prob/efficacy"] == 1.0
    assert rows[-1]["editing/immediate/prob/efficacy"] == 1.0
    assert len({row["weights_sha256"] for row in rows}) == 2
    assert (finished_run / "curves.png").stat().st_size > 20_000
    for name in ("config.yaml", "environment.json", "prefixes.json", "edits.jsonl"):
        assert (finished_run / name).is_file()
    assert len(list((finished_run / "updates").glob("*.safetensors"))) == 2


def test_prefixes_read_like_text(finished_run):
    contexts = json.loads((finished_run / "prefixes.json").read_text())["contexts"]
    words = [word for context in contexts[1:] for word in context.split()]
    assert contexts[0] == "" and len(contexts) == 5
    assert sum(word.strip("'’,.?!\"").isalpha() for word in words) > 0.7 * len(words), contexts


def test_the_synced_run_holds_every_number_once(finished_run, server):
    url, database = server
    (offline,) = (finished_run / "wandb").glob("offline-run-*")
    environment = {**os.environ, "WANDB_BASE_URL": url, "WANDB_API_KEY": "k" * 40}
    command = [sys.executable, "-m", "wandb", "sync", str(offline)]
    synced = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert synced.returncode == 0, synced.stdout + synced.stderr
    expected = _expected_points(finished_run)
    found = _stored_points(database, at_least=len(expected))
    assert len(found) == len(set(found)), "a number was stored twice"
    stored = {(key, step): value for key, step, value in found}
    missing = {point for point in expected if point not in stored}
    assert not missing, sorted(missing)[:5]
    assert all(stored[point] == pytest.approx(value, rel=1e-12, abs=1e-12) for point, value in expected.items())


def _rows(folder: Path) -> list[dict]:
    (path,) = folder.glob("results-*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def _expected_points(folder: Path) -> dict[tuple[str, int], float]:
    """Every number of the results file and of the edits' diagnostics, at the step it is tracked under."""
    points = {}
    for row in _rows(folder):
        for key, value in row.items():
            if isinstance(value, int | float):
                points[key, 2 * row["n_edits"] + 1] = float(value)
    for line in (folder / "edits.jsonl").read_text().splitlines():
        record = json.loads(line)
        for key, value in record["diagnostics"].items():
            points[f"edit/{key}", 2 * record["n_edits"]] = float(value)
        points["time/edit_s", 2 * record["n_edits"]] = record["edit_s"]
    return points


def _stored_points(database: Path, at_least: int) -> list[tuple[str, int, float]]:
    """Waits until the server has written what it was sent."""
    deadline = time.time() + 30
    while True:
        with sqlite3.connect(database) as connection:
            points = connection.execute("SELECT key, step, value FROM metrics").fetchall()
        if len(points) >= at_least or time.time() > deadline:
            return points
        time.sleep(0.5)


def _wait_for(url: str) -> None:
    deadline = time.time() + 60
    while time.time() < deadline:
        try:
            urllib.request.urlopen(url, timeout=2)
            return
        except OSError:
            time.sleep(0.3)
    raise TimeoutError(f"no server at {url}")
