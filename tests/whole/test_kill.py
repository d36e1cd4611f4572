"""A run that is killed again and again ends where an uninterrupted one does; two runs make their constants once."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from afteredit.run import main
from afteredit.store.checked_lines import Lines
from afteredit.tests.tiny.forked import begin_run

RUN = ("n_edits=3", "eval_every=1", "task=[sentiment]", "limit=3")
POLL = 0.001  # seconds between two looks at the run directory


@dataclass(frozen=True)
class Place:
    command: list[str]  # of a run on the tiny model, `runs` and `tracker` excepted
    environment: dict[str, str]


@pytest.fixture(autouse=True)
def short_texts_for_fluency():
    """None here: whole texts, as processes of their own and the fixtures of this module write them."""


@pytest.fixture(scope="module")
def place(tmp_path_factory, save_tiny_llama, few_facts) -> Place:
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny_llama(folder / "model")
    (folder / "text.txt").write_text("The old town has a market, and people come to buy fish and bread.\n" * 300)
    command = ["model=hf", f"model.source={folder}/model", f"method.second_moment_text={folder}/text.txt",
               "method.tokens_per_key_dim=20", "method.layer=1", "method.value_steps=4", "method.contexts_short=2",
               "method.contexts_long=0", "held_out_tokens=64", "device=cpu", few_facts]  # fmt: skip
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    alone = {"AFTEREDIT_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return Place(command, kept | alone)


@pytest.fixture(scope="module")
def straight(place, tmp_path_factory) -> tuple[dict, float]:
    """What an uninterrupted run leaves, and the seconds it takes from its start-up's end to its last row."""
    runs = tmp_path_factory.mktemp("straight")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AFTEREDIT_CACHE", place.environment["AFTEREDIT_CACHE"])
        assert main([*place.command, *RUN, "tracker=none", f"runs={runs}"]) == 0
    (folder,) = runs.iterdir()
    (results,) = folder.glob("results-*.jsonl")
    return left_by(folder), results.stat().st_mtime - (folder / "config.yaml").stat().st_mtime


def left_by(folder: Path) -> dict:
    """All that must not depend on kills: rows, records of edits, their immediate success, updates, samples."""
    (results,) = folder.glob("results-*.jsonl")
    rows = [{k: v for k, v in row.items() if not k.startswith(("time/", "memory/"))} for row in Lines(results).records]
    (immediate,) = folder.glob("immediate-*.jsonl")
    records = [*Lines(folder / "edits.jsonl").records, *Lines(immediate).records]
    edits = [{k: v for k, v in record.items() if k not in ("edit_s", "immediate_s")} for record in records]
    kinds = ("updates/*", "samples/*", "prefixes.json*", "first_facts.json*")
    files = {p.name: p.read_bytes() for kind in kinds for p in sorted(folder.glob(kind))}
    return {"name": folder.name, "rows": rows, "edits": edits, "files": files}


def the_run(runs: Path) -> Path | None:
    return next(runs.iterdir(), None) if runs.is_dir() else None


def written(runs: Path) -> dict[str, int]:
    """Sizes of our files in the run directory, half-written ones among them; W&B's own change all the time."""
    folder = the_run(runs)
    sizes = {}
    for path in [*folder.glob("*"), *folder.glob("[us]*/*")] if folder else []:
        try:
            sizes[str(path)] = path.stat().st_size
        except FileNotFoundError:  # renamed meanwhile
            continue
    return sizes


def started(runs: Path) -> int:
    """The run writes its config when everything is prepared, and then the folder that W&B gave it, if any: a new time
    there is the end of a start-up."""
    folder = the_run(runs)
    path = folder / ("environment.json" if (folder / "wandb").exists() else "config.yaml") if folder else runs
    return path.stat().st_mtime_ns if path.is_file() else 0


def share_left(runs: Path) -> float:
    folder = the_run(runs)
    results = next(folder.glob("results-*.jsonl"), None) if folder else None
    return 1 - (len(results.read_bytes().splitlines()) if results else 0) / 4


def killed(process: BaseProcess, runs: Path, moment: Callable[[], bool]) -> bool:
    """Kills the process and its children once its start-up is over and `moment` has come; False: it ended first."""
    before = started(runs)
    come = False
    while process.is_alive() and not come:
        time.sleep(POLL)
        come = started(runs) != before and moment()
    if process.is_alive():
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
        return True
    assert process.exitcode == 0, runs.with_name("output").read_text()
    return False


def after(seconds: float) -> Callable[[], bool]:
    """From its first call on."""
    begun: list[float] = []

    def come() -> bool:
        begun.append(time.monotonic())
        return begun[-1] - begun[0] >= seconds

    return come


def at_write(runs: Path, count: int) -> Callable[[], bool]:
    """When a file of the run directory has appeared, grown or gone for the `count`th time."""
    seen: list[dict[str, int]] = []

    def come() -> bool:
        now = written(runs)
        if not seen or seen[-1] != now:
            seen.append(now)
        return len(seen) > count

    return come


def offline_records(path: Path) -> Iterator[Any]:
    """Yields the records of W&B's own file of an offline run: cut into chunks (checksum, length, kind: 1 whole, 2 to 4
    first, middle and last part) that do not cross blocks of 32 KiB."""
    from wandb.proto import wandb_internal_pb2

    content, at, record = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        record, at = record + content[at + 7 : at + 7 + length], at + 7 + length
        if kind in (1, 4):
            yield wandb_internal_pb2.Record.FromString(record)
            record = b""


def _values(items: Iterable[Any]) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def history(path: Path) -> dict[int, dict]:
    """Returns what W&B's own file of an offline run holds, by step."""
    rows = (record.history for record in offline_records(path) if record.history.item)
    return {row.step.num: _values(row.item) for row in rows}


def summary(path: Path) -> dict[str, Any]:
    """Returns the summary that W&B's own file of an offline run holds."""
    told: dict[str, Any] = {}
    for record in offline_records(path):
        told |= _values(record.summary.update)
    return told


@pytest.mark.parametrize(
    ("tracker", "n_kills", "seed"),
    [
        ("tracker=none", 3, 0),
        ("tracker.mode=offline", 2, 1),
        pytest.param("tracker=none", 13, 2, marks=pytest.mark.slow),
        pytest.param("tracker.mode=offline", 12, 3, marks=pytest.mark.slow),
    ],
)
def test_a_run_killed_at_any_moment_ends_where_an_uninterrupted_one_does(
    place, straight, tmp_path, monkeypatch, tracker, n_kills, seed
):
    """Kills fall anywhere in what is left of the run, or into its writes; a run with all its rows is begun afresh."""
    expected, duration = straight
    chance, runs, kills = random.Random(seed), tmp_path / "runs", 0
    while kills < n_kills:
        moment = (after(chance.uniform(0, duration * share_left(runs))) if chance.random() < 0.5
                  else at_write(runs, chance.randint(1, 8)))  # fmt: skip
        arguments = [*place.command, *RUN, tracker, f"runs={runs}"]
        kills += killed(begin_run(arguments, place.environment, tmp_path / "output"), runs, moment)
        if share_left(runs) == 0:
            assert left_by(the_run(runs)) == expected
            shutil.rmtree(runs)
    monkeypatch.setenv("AFTEREDIT_CACHE", place.environment["AFTEREDIT_CACHE"])
    assert main([*place.command, *RUN, tracker, f"runs={runs}"]) == 0  # in this process: it is not killed
    assert left_by(the_run(runs)) == expected
    starts = sorted(runs.glob("*/wandb/offline-run-*/run-*.wandb"))
    assert bool(starts) == (tracker == "tracker.mode=offline")
    if starts:  # the last one holds every number, whatever the killed ones before it hold
        kept = history(starts[-1])
        for row in expected["rows"]:
            numbers = {key: value for key, value in row.items() if isinstance(value, int | float)}
            assert {key: kept[2 * row["n_edits"] + 1][key] for key in numbers} == numbers
        assert set(kept) == {1, *(step for n in (1, 2, 3) for step in (2 * n, 2 * n + 1))}


def test_of_two_runs_that_need_the_same_constants_one_makes_them(place, tmp_path):
    environment = place.environment | {"AFTEREDIT_CACHE": str(tmp_path / "cache")}
    arguments = [*place.command, "n_edits=1", "eval_every=1", "task=none", "tracker=none",
                 "method.tokens_per_key_dim=200"]  # fmt: skip
    both = {name: begin_run([*arguments, f"runs={tmp_path}/{name}"], environment, tmp_path / f"{name}.log")
            for name in ("one", "two")}  # fmt: skip
    for process in both.values():
        process.join(timeout=120)
    said = [(tmp_path / f"{name}.log").read_text() for name in both]
    assert [process.exitcode for process in both.values()] == [0, 0], said
    assert sum(log.count("computing second moments (") for log in said) == 1
    assert len(list((tmp_path / "cache" / "second_moment").glob("*.safetensors"))) == 1
    one, two = (left_by(the_run(tmp_path / name)) for name in ("one", "two"))
    assert one == two
