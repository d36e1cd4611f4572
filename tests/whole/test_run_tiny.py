"""The whole path, `run.main([...])` to files, on a tiny Llama: what ends where, and that it ends there again."""

from __future__ import annotations

import errno
import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch

from afteredit.analysis.read.run_folders import read_run
from afteredit.edit.methods.rome import Rome
from afteredit.edit.update import load_update
from afteredit.evaluate import measure
from afteredit.launch import opening
from afteredit.model.loading.model_source import ModelSource
from afteredit.record import journal
from afteredit.record.tracking.tracker import Tracker
from afteredit.run import main
from afteredit.store.checked_lines import Lines, read_checked, write_checked
from afteredit.store.code_version import version_name
from afteredit.store.errors import Interrupted

ROOT = Path(__file__).resolve().parents[2]
TASKS = "task=[sentiment,open_qa]"


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory, save_tiny_llama):
    """One tiny model, one text and one cache for all runs here: what decides a run is then the same everywhere."""
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny_llama(folder / "model")
    (folder / "text.txt").write_text("The old town has a market, and people come to buy fish and bread.\n" * 30)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AFTEREDIT_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture
def go(place, few_facts, tmp_path):
    """go("n_edits=4", …, runs=<folder>) -> the one run directory in `runs`."""

    fixed = ("model=hf", f"model.source={place}/model", f"method.second_moment_text={place}/text.txt",
             "method.tokens_per_key_dim=2", "method.layer=1", "method.value_steps=4", "method.contexts_short=2",
             "method.contexts_long=0", "limit=3", "held_out_tokens=64", "tracker=none", "device=cpu",
             few_facts)  # fmt: skip

    def run(*overrides: str, runs: Path | None = None, rc: int = 0) -> Path:
        runs = runs or tmp_path / "runs"
        assert main([*fixed, TASKS, *overrides, f"runs={runs}"]) == rc
        (folder,) = runs.iterdir()
        return folder

    run.fixed = fixed
    return run


@pytest.fixture(scope="module")
def made() -> dict[str, Path]:
    return {}


@pytest.fixture
def straight(go, made, tmp_path_factory, tmp_path) -> Path:
    """A copy of the run that everything is held against: four edits, measured after each."""
    if not made:
        made["runs"] = tmp_path_factory.mktemp("straight")
        go("n_edits=4", "eval_every=1", runs=made["runs"])
    shutil.copytree(made["runs"], tmp_path / "straight")
    (folder,) = (tmp_path / "straight").iterdir()
    return folder


def rows(folder: Path) -> list[dict]:
    (path,) = folder.glob("results-*.jsonl")
    return Lines(path).records


def untimed(row: dict, *more: str) -> dict:
    return {k: v for k, v in row.items() if not k.startswith(("time/", "memory/", *more))}


def state_of(folder: Path) -> dict[str, bytes]:
    kept = [p for p in sorted(folder.rglob("*")) if p.suffix in (".jsonl", ".safetensors", ".parquet")]
    return {str(p.relative_to(folder)): p.read_bytes() for p in kept}


def test_a_run_leaves_what_the_design_promises(straight):
    assert straight.name.startswith("rome-hf-")
    assert [row["n_edits"] for row in rows(straight)] == [0, 1, 2, 3, 4]
    assert len({row["weights_sha256"] for row in rows(straight)}) == 5
    for name in ("config.yaml", "environment.json", "prefixes.json", "edits.jsonl", "curves.png"):
        assert (straight / name).stat().st_size > 0
    assert len(list((straight / "updates").glob("*.safetensors"))) == 4
    assert len(list((straight / "samples").glob("*.parquet"))) == 5
    first, last = rows(straight)[0], rows(straight)[-1]
    assert last["drift/1/relative_norm"] > 0 and last["drift/perplexity"] != first["drift/perplexity"]
    for key in ("ability/sentiment", "ability/open_qa/gold_nll", "editing/immediate/prob/efficacy",
                "editing/retained/forced/neighbourhood"):  # fmt: skip
        assert key in last


def test_measuring_more_often_changes_nothing(straight, go):
    seldom = go("n_edits=4", "eval_every=4")
    assert [row["n_edits"] for row in rows(seldom)] == [0, 4]
    ours, theirs = (untimed(rows(folder)[-1], "editing/immediate", "samples_sha256") for folder in (straight, seldom))
    assert ours == theirs
    assert state_of(straight)["updates/000003.safetensors"] == state_of(seldom)["updates/000003.safetensors"]


def test_it_is_measured_at_chosen_points_too_and_at_the_end_of_a_batch_that_one_is_in(straight, go, tmp_path):
    """The entries moved are counted again from the weights that a replay would read: the updates in order."""
    folder = go("n_edits=4", "eval_every=4", "eval_at=[1]", "task=none", "change_shares=[0.01]", runs=tmp_path / "one")
    assert [row["n_edits"] for row in rows(folder)] == [0, 1, 4]
    update = load_update(folder / "updates" / "000000.safetensors")
    (change,) = update.changes.values()
    assert rows(folder)[1]["drift/1/manhattan"] == pytest.approx(float(change.dense().abs().sum()), rel=1e-4)
    assert 0 < rows(folder)[1]["drift/1/moved_0.01"] <= rows(folder)[2]["drift/1/moved_0.01"] <= 1
    batches = ("method=memit", "method.layers=[1]", "batch_size=2", "eval_every=4", "eval_at=[1]", "task=none")
    main_keys = [key for key in go.fixed if not key.startswith(("method.layer=", "method.contexts_"))]
    assert main([*main_keys, *batches, "n_edits=4", f"runs={tmp_path / 'two'}"]) == 0
    (folder,) = (tmp_path / "two").iterdir()
    assert [row["n_edits"] for row in rows(folder)] == [0, 2, 4]


def test_the_same_seed_gives_the_same_rows_and_another_seed_does_not(straight, go, tmp_path):
    again = go("n_edits=4", "eval_every=1", runs=tmp_path / "again")
    assert again.name == straight.name
    assert [untimed(row) for row in rows(again)] == [untimed(row) for row in rows(straight)]
    other = go("n_edits=1", "task=none", "seed=1", runs=tmp_path / "other")
    assert other.name != straight.name
    assert rows(other)[1]["weights_sha256"] != rows(straight)[1]["weights_sha256"]


def test_a_finished_run_is_not_made_again(straight, go, capsys):
    before = state_of(straight)
    go("n_edits=4", "eval_every=1", runs=straight.parent)
    assert state_of(straight) == before
    assert "finished already" in capsys.readouterr().out


def test_raising_n_edits_goes_on_with_the_same_run(straight, go):
    grown = go("n_edits=2", "eval_every=1")
    assert [row["n_edits"] for row in rows(grown)] == [0, 1, 2]
    begun = state_of(grown)["edits.jsonl"]
    assert go("n_edits=4", "eval_every=1") == grown
    assert state_of(grown)["edits.jsonl"].startswith(begun)
    ours, theirs = ({row["n_edits"]: row["weights_sha256"] for row in rows(folder)} for folder in (straight, grown))
    assert ours == theirs
    assert untimed(rows(grown)[-1]) == untimed(rows(straight)[-1])


@pytest.mark.parametrize("torn", [False, True])
def test_a_killed_run_ends_where_an_uninterrupted_one_does(straight, go, torn):
    """Lost: the last edit and the rows of the last two checkpoints; torn: the line being written as well."""
    expected = [untimed(row) for row in rows(straight)]
    (results,) = straight.glob("results-*.jsonl")
    for path, n_lost in ((straight / "edits.jsonl", 1), (results, 2)):
        lines = path.read_bytes().splitlines(keepends=True)
        tail = lines[-n_lost][:40] if torn else b""
        path.write_bytes(b"".join(lines[:-n_lost]) + tail)
    go("n_edits=4", "eval_every=1", runs=straight.parent)
    assert [untimed(row) for row in rows(straight)] == expected


def test_in_setting_single_each_edit_starts_from_the_unedited_model(go, place, tmp_path):
    folder = go("n_edits=2", "eval_every=1", "setting=single", "task=none")
    lm = ModelSource("hf", f"{place}/model").load("cpu", "float32")
    for n in (1, 2):
        lm.weights.restore()
        lm.weights.add(load_update(folder / "updates" / f"{n - 1:06d}.safetensors").changes)
        assert rows(folder)[n]["weights_sha256"] == lm.weights.sha256()
    # and the second edit is the one that a run of that fact alone makes
    second = (ROOT / "data" / "facts.jsonl").read_text(encoding="utf-8").splitlines()[1]
    (tmp_path / "second.jsonl").write_text(second + "\n", encoding="utf-8")
    alone = go("n_edits=1", "task=none", f"edits.file={tmp_path}/second.jsonl", runs=tmp_path / "alone")
    assert rows(alone)[-1]["weights_sha256"] == rows(folder)[-1]["weights_sha256"]


def test_a_task_added_later_is_measured_at_every_checkpoint_of_the_same_run(straight, go):
    (first,) = straight.glob("results-*.jsonl")
    before = state_of(straight)
    assert go("n_edits=4", "eval_every=1", "task=[sentiment,nli]", runs=straight.parent) == straight
    (second,) = set(straight.glob("results-*.jsonl")) - {first}
    old, new = Lines(first).records, Lines(second).records
    assert [row["n_edits"] for row in new] == [0, 1, 2, 3, 4]
    assert [row["weights_sha256"] for row in new] == [row["weights_sha256"] for row in old]
    assert all("ability/nli" in row and "ability/open_qa" not in row for row in new)
    for key in ("ability/sentiment/gold_nll", "drift/perplexity", "editing/retained/prob/efficacy"):
        assert [row[key] for row in new] == [row[key] for row in old]
    after, texts = state_of(straight), "samples/texts.jsonl"
    assert after[texts].startswith(before.pop(texts))  # the new task's questions and answers come after those before
    assert {name: content for name, content in after.items() if name in before} == before


def test_a_run_begun_under_other_code_is_only_continued_by_force(straight, go, capsys):
    path = straight / "environment.json"
    environment = read_checked(path)
    environment["decides"]["packages"]["torch"] = "1.0"
    write_checked(path, environment)
    go("n_edits=4", "eval_every=1", runs=straight.parent, rc=2)
    error = capsys.readouterr().err
    assert "torch (1.0 then, " in error and "resume=force" in error
    go("n_edits=5", "eval_every=1", "resume=force", runs=straight.parent)
    (forced,) = json.loads(path.read_text())["forced"]
    assert forced["after_edits"] == 4 and forced["decides"]["packages"]["torch"] == torch.__version__
    go("n_edits=6", "eval_every=1", runs=straight.parent)  # what was forced once is what the last edits were made under
    assert json.loads(path.read_text())["forced"] == [forced]


def test_a_run_goes_on_with_its_own_speed_keys_unless_the_command_names_others(straight, go, capsys):
    go("n_edits=5", "eval_every=1", "task=none", "speed.cache_gib=0.5", runs=straight.parent)
    said = " ".join(capsys.readouterr().out.split())
    assert "speed.cache_gib is 0.5 from here on, after 4 edits; it was 2.0" in said
    go("n_edits=6", "eval_every=1", "task=none", runs=straight.parent)
    assert "from here on" not in " ".join(capsys.readouterr().out.split())
    first = {"after_edits": 0, "together": 8, "cache_gib": 2.0}
    second = {**first, "after_edits": 4, "cache_gib": 0.5}
    assert read_checked(straight / "environment.json")["speed"] == [first, second]


def test_immediate_success_is_measured_again_where_its_row_is_missing(straight, go):
    """As after a kill between an edit and its row, or under another evaluation."""
    (path,) = straight.glob("immediate-*.jsonl")
    whole = Lines(path).records
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    go("n_edits=4", "eval_every=1", runs=straight.parent)
    go("n_edits=4", "eval_every=1", "task=none", runs=straight.parent)
    for file in straight.glob("immediate-*.jsonl"):
        assert [untimed(row, "immediate_s") for row in Lines(file).records] == [
            untimed(row, "immediate_s") for row in whole
        ]
    assert len(list(straight.glob("immediate-*.jsonl"))) == 2


def test_runs_of_an_older_version_are_named_before_a_run_is_begun_anew(straight, go, capsys):
    """Their environment.json does not say which model was edited."""
    environment = {key: value for key, value in read_checked(straight / "environment.json").items() if key != "model"}
    for i in range(7):
        (straight.parent / f"rome-hf-0000000{i}").mkdir()
        write_checked(straight.parent / f"rome-hf-0000000{i}" / "environment.json", environment | {"commit": f"c{i}"})
    assert main([*go.fixed, "task=none", "seed=5", "n_edits=1", f"runs={straight.parent}"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("was made by an older version") == 5 and "(commit c4)" in said and straight.name not in said


def test_a_damaged_update_is_refused_by_name(straight, go, capsys):
    path = straight / "updates" / "000001.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    go("n_edits=4", "eval_every=1", runs=straight.parent, rc=2)
    assert "000001.safetensors" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["update", "line"])
def test_a_damaged_journal_goes_on_from_its_last_whole_record_where_that_is_asked_for(straight, go, damage, capsys):
    """What follows is set aside, made again, and the same to the bit."""
    before = {name: content for name, content in state_of(straight).items() if "environment" not in name}
    if damage == "update":
        (straight / "updates" / "000001.safetensors").write_bytes(b"x")
    else:
        path = straight / "edits.jsonl"
        first, second, *rest = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join([first, second.replace(b"n_edits", b"n_edit5", 1), *rest]))
    go("n_edits=4", "eval_every=1", "resume=whole", runs=straight.parent)
    said = " ".join(capsys.readouterr().out.split())
    assert "edits.jsonl:2" in said and "set aside" in said
    assert len((straight / "edits.jsonl.damaged").read_bytes().splitlines()) == 3
    after = state_of(straight)
    kept = [name for name in before if name.startswith(("updates", "results", "samples"))]
    assert kept and all(after[name] == before[name] for name in kept)
    made = Lines(straight / "edits.jsonl").records
    assert [record["n_edits"] for record in made] == [1, 2, 3, 4]


@pytest.mark.parametrize("damaged", ["results", "immediate"])
def test_damaged_rows_are_measured_again_where_that_is_asked_for(straight, go, damaged, capsys):
    """The error names resume=whole, and that does what it says: the same numbers, and what was damaged is kept."""
    (path,) = straight.glob(f"{damaged}-*.jsonl")
    whole = Lines(path).records
    first, second, *rest = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([first, second.replace(b"n_edits", b"n_edit5", 1), *rest]))
    go("n_edits=4", "eval_every=1", runs=straight.parent, rc=2)
    assert f"{path.name}:2" in (said := capsys.readouterr().err) and "resume=whole" in said
    go("n_edits=4", "eval_every=1", "resume=whole", runs=straight.parent)
    changes = ("immediate_s", "samples_sha256")
    assert [untimed(row, *changes) for row in Lines(path).records] == [untimed(row, *changes) for row in whole]
    assert len(path.with_name(f"{path.name}.damaged").read_bytes().splitlines()) == len(whole) - 1


def test_other_hardware_or_threads_are_noted_and_told(straight, go, capsys):
    path = straight / "environment.json"
    stored = read_checked(path)
    write_checked(path, stored | {"hardware": stored["hardware"] | {"threads": 99}})
    go("n_edits=5", "eval_every=1", runs=straight.parent)
    assert "made on other hardware or threads" in " ".join(capsys.readouterr().out.split())
    (moved,) = read_checked(path)["moved"]
    assert moved["after_edits"] == 4 and moved["hardware"] == stored["hardware"]
    go("n_edits=6", "eval_every=1", runs=straight.parent)
    assert read_checked(path)["moved"] == [moved]


def test_a_run_does_not_go_on_under_another_second_moment(straight, go, place):
    """The text behind C decides the weights: with other words in the same file it is another run, or is refused."""
    text = place / "text.txt"
    original, begun = text.read_text(), state_of(straight)["edits.jsonl"]
    try:
        text.write_text("Seven grey ships sailed slowly towards northern islands at dawn.\n" * 30)
        main([*go.fixed, TASKS, "n_edits=5", "eval_every=1", f"runs={straight.parent}"])
    finally:
        text.write_text(original)
    assert state_of(straight)["edits.jsonl"] == begun, "the fifth edit was written with the C of another text"


def test_nothing_is_littered_into_the_working_folder(go, tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    go("n_edits=1", "task=none")
    assert list((tmp_path / "work").iterdir()) == []


def test_a_view_changes_what_is_measured_and_not_what_is_written(go, straight):
    """PRUNE restrains what metrics see and no weight: the same run is measured under it, in another results file."""
    before, edits = rows(straight), (straight / "edits.jsonl").read_bytes()
    assert go("n_edits=4", "eval_every=1", "constraint=prune", runs=straight.parent) == straight
    assert (straight / "edits.jsonl").read_bytes() == edits
    plain, pruned = sorted(read_run(straight), key=lambda run: run.method)
    assert (plain.method, pruned.method) == ("rome", "rome+prune") and list(plain.rows) == before
    assert [row["weights_sha256"] for row in pruned.rows] == [row["weights_sha256"] for row in before]


@pytest.mark.parametrize("method", ["memit", "memit_seq", "alphaedit", "ft", "kn", "mend"])
def test_every_method_runs_in_batches_and_is_replayed_to_the_bit(go, place, method, tmp_path):
    """Two batches, then two more by the same command with more edits: what the journal holds is not computed again."""
    keys = ["method.layers=[0,1]", "method.value_steps=3", "method.contexts=1", "method.threshold_kind=relative",
            "method.threshold=0.9", f"method.second_moment_text={place}/text.txt", "method.tokens_per_key_dim=8",
            "method.second_moment_weight=1", "method.steps=2"]  # fmt: skip
    known = {"memit": keys[:3] + keys[5:8], "memit_seq": keys[:3] + keys[5:8], "alphaedit": keys[:7],
             "ft": ["method.layers=[0,1]", keys[8], "method.epochs=2"], "kn": [keys[2], keys[8]],
             "mend": ["method.n_layers=2", "method.rank=4", "method.steps=6", "method.batch=8", "method.alpha=0.01",
                      "method.edit_weight=1", "method.learning_rate=1e-3"]}  # fmt: skip
    fixed = [key for key in go.fixed if not key.startswith("method.")]

    def run(runs: Path, n: int) -> Path:
        command = [*fixed, *known[method], f"method={method}", "task=none", f"n_edits={n}", "batch_size=2",
                   "eval_every=2", f"runs={runs}"]  # fmt: skip
        assert main(command) == 0
        (folder,) = runs.iterdir()
        return folder

    whole = run(tmp_path / "whole", 4)
    run(tmp_path / "parts", 2)
    parts = run(tmp_path / "parts", 4)
    assert [row["weights_sha256"] for row in rows(parts)] == [row["weights_sha256"] for row in rows(whole)]
    assert untimed(rows(parts)[-1]) == untimed(rows(whole)[-1])
    assert rows(whole)[-1]["weights_sha256"] != rows(whole)[0]["weights_sha256"]
    assert {key for key in rows(whole)[-1] if key.startswith("editing/immediate/")}


def test_a_stopped_run_ends_at_a_whole_edit_and_goes_on_to_the_same_end(go, straight, tmp_path, monkeypatch, capsys):
    """SIGTERM during the second edit: that edit is finished and kept, nothing after it is begun."""
    runs, seen = tmp_path / "stopped", []
    update = Rome.update

    def interrupting(self, lm, requests, prepared, state):
        seen.append(requests[0].id)
        if len(seen) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(self, lm, requests, prepared, state)

    with monkeypatch.context() as patch:
        patch.setattr(Rome, "update", interrupting)
        folder = go("n_edits=4", "eval_every=1", runs=runs, rc=128 + signal.SIGTERM)
    assert "stopped after 2 edits" in " ".join(capsys.readouterr().out.split())
    assert len(Lines(folder / "edits.jsonl").records) == len(seen) == 2
    go("n_edits=4", "eval_every=1", runs=runs)
    assert [untimed(row) for row in rows(folder)] == [untimed(row) for row in rows(straight)]


def test_a_run_that_fails_says_so_to_wandb(go, tmp_path, monkeypatch):
    """Else the next run in this process would be logged into it."""
    told = []

    def broken(*_args):
        raise RuntimeError("broken")

    monkeypatch.setattr(Tracker, "fail", lambda self: told.append("failed"))
    monkeypatch.setattr(Rome, "update", broken)
    with pytest.raises(RuntimeError, match="broken"):
        go("n_edits=1", "eval_every=1", "task=none", runs=tmp_path / "runs")
    assert told == ["failed"]


def test_nan_in_an_update_is_a_collapse_that_is_recorded_and_not_written(go, tmp_path, monkeypatch, capsys):
    update = Rome.update

    def collapsing(self, lm, requests, prepared, state):
        good = update(self, lm, requests, prepared, state)
        if len(lm.weights.base) and requests[0].id == third:
            bad = {name: replace(c, left_Dr=c.left_Dr * float("nan")) for name, c in good.changes.items()}
            return replace(good, changes=bad)
        return good

    third = json.loads((ROOT / "data" / "facts.jsonl").read_text().splitlines()[2])["id"]
    monkeypatch.setattr(Rome, "update", collapsing)
    folder = go("n_edits=4", "eval_every=2", "on_collapse=stop", runs=tmp_path / "runs")
    assert [row["n_edits"] for row in rows(folder)] == [0, 2, 3]
    assert rows(folder)[-1]["weights_sha256"] == rows(folder)[-2]["weights_sha256"]
    assert "collapsed at 3 edits: an update held NaN" in capsys.readouterr().out
    assert rows(folder)[-1]["collapse"].startswith("an update held NaN") and "collapse" not in rows(folder)[-2]
    go("n_edits=4", "eval_every=2", "on_collapse=stop", runs=tmp_path / "runs")
    assert "finished already: 3 edits" in " ".join(capsys.readouterr().out.split())
    go("n_edits=4", "eval_every=2", "on_collapse=continue", runs=tmp_path / "runs")
    assert [row["n_edits"] for row in rows(folder)] == [0, 2, 3, 4]
    assert rows(folder)[-1]["weights_sha256"] != rows(folder)[-2]["weights_sha256"]


def test_perplexity_past_its_limit_is_a_collapse(go, tmp_path, monkeypatch, capsys):
    perplexities = iter([40.0, 41.0, 401.0])
    monkeypatch.setattr(measure, "drift", lambda *_: {"drift/perplexity": next(perplexities)})
    folder = go("n_edits=4", "eval_every=1", "on_collapse=stop", "collapse_perplexity=10", runs=tmp_path / "runs")
    assert [row["drift/perplexity"] for row in rows(folder)] == [40.0, 41.0, 401.0]
    condition = "perplexity 401 is above 10 times the unedited model's 40"
    assert f"collapsed at 2 edits: {condition}" in capsys.readouterr().out
    assert [row.get("collapse") for row in rows(folder)] == [None, None, condition]


def test_a_full_disk_ends_the_run_with_a_remedy_and_keeps_what_was_written(go, straight, tmp_path, monkeypatch, capsys):
    """The third update cannot be written; once there is room the same command ends where it would have."""
    runs, write = tmp_path / "full", journal.write_atomically

    def full(path, content):
        if path.name == "000002.safetensors":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(journal, "write_atomically", full)
        folder = go("n_edits=4", "eval_every=1", runs=runs, rc=2)
    assert "No space left on device" in capsys.readouterr().err
    assert len(Lines(folder / "edits.jsonl").records) == 2
    go("n_edits=4", "eval_every=1", runs=runs)
    assert [untimed(row) for row in rows(folder)] == [untimed(row) for row in rows(straight)]


def test_a_limit_on_file_sizes_tears_a_line_and_nothing_is_lost(go, straight, place, tmp_path):
    """The system itself stops the write of the fifth edit's immediate success within its line."""
    whole = shutil.copytree(straight.parent, tmp_path / "whole")
    go("n_edits=5", "eval_every=1", runs=whole)
    (path,) = straight.glob("immediate-*.jsonl")  # the largest file that a run appends to
    limit = path.stat().st_size + 100
    command = [
        sys.executable,
        ROOT / "run.py",
        *go.fixed,
        TASKS,
        "n_edits=5",
        "eval_every=1",
        f"runs={straight.parent}",
    ]
    done = subprocess.run(
        command, env=os.environ | {"AFTEREDIT_CACHE": str(place / "cache")}, capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    assert done.returncode == 2 and "error: File too large" in done.stderr and "make room" in done.stderr, done.stderr
    left = path.read_bytes()
    assert len(left) == limit and not left.endswith(b"\n")
    go("n_edits=5", "eval_every=1", runs=straight.parent)
    assert [untimed(row) for row in rows(straight)] == [untimed(row) for row in rows(whole / straight.name)]


@pytest.mark.parametrize("method", ["rome", "memit", "kn", "ft"])
def test_a_model_that_earlier_edits_broke_is_a_collapse_for_every_method_and_no_crash(go, place, tmp_path, method):
    """In float16, with steps so large that activations overflow."""
    keys = {"rome": ["method.layer=1", "method.contexts_short=1", "method.contexts_long=0"],
            "memit": ["method.layers=[0,1]", "method.contexts=1", "method.second_moment_weight=1e-6"],
            "kn": ["method.steps=2", "method.contexts=1", "method.lambda_new=1e15"],
            "ft": ["method.layers=[0,1]", "method.steps=4", "method.learning_rate=1e4",
                   "method.max_change=1e4"]}  # fmt: skip
    if method in ("rome", "memit"):
        keys[method] += [f"method.second_moment_text={place}/text.txt", "method.tokens_per_key_dim=8",
                         "method.value_steps=4", "method.max_offset=1e4", "method.value_lr=1e4"]  # fmt: skip
    fixed = [key for key in go.fixed if not key.startswith("method.")]
    command = [*fixed, f"method={method}", *keys[method], "task=none", "n_edits=6", "eval_every=3", "dtype=float16"]
    for on_collapse, n_made in (("stop", None), ("continue", 6)):
        assert main([*command, f"on_collapse={on_collapse}", f"runs={tmp_path}/runs"]) == 0
        (folder,) = (tmp_path / "runs").iterdir()
        made = Lines(folder / "edits.jsonl").records
        collapsed = [edit["n_edits"] for edit in made if "collapsed" in edit["diagnostics"]]
        assert collapsed and len(made) == (n_made or collapsed[0])


def test_rows_of_another_evaluator_are_not_continued_unasked(straight, go, monkeypatch, capsys):
    """A finished run is finished under any evaluator; what is missing is not measured beside what another measured."""
    (path,) = straight.glob("results-*.jsonl")
    (ours,) = {row["evaluator"] for row in rows(straight)}
    other = {"code": "new", "packages": {"lm_eval": "9.9"}}
    name = version_name(other)
    monkeypatch.setattr(opening, "measuring_version", lambda *_: other)
    go("n_edits=4", "eval_every=1", runs=straight.parent)
    assert "finished already" in capsys.readouterr().out
    before = state_of(straight)
    go("n_edits=5", "eval_every=1", runs=straight.parent, rc=2)
    error = capsys.readouterr().err
    for text in (
        path.name,
        "n_edits 0, 1, 2, 3, 4",
        "code, lm_eval (",
        "9.9 now",
        "move that file away",
        "resume=force",
    ):
        assert text in error
    assert state_of(straight) == before
    go("n_edits=5", "eval_every=1", "resume=force", runs=straight.parent)
    assert [row["evaluator"] for row in rows(straight)] == [ours] * 5 + [name]
    assert json.loads((straight / "environment.json").read_text())["evaluators"][name] == other
    path.rename(straight / "before.jsonl")
    go("n_edits=5", "eval_every=1", runs=straight.parent)
    assert [row["evaluator"] for row in rows(straight)] == [name] * 6
    assert state_of(straight)["edits.jsonl"].startswith(before["edits.jsonl"])


def test_fewer_edits_than_there_are_say_nothing_of_later_ones(straight, go, capsys):
    before = state_of(straight)
    capsys.readouterr()
    go("n_edits=2", "eval_every=1", runs=straight.parent)
    said = capsys.readouterr().out
    assert "after 2 edits" in said and "at 4" not in said and "after 4 edits" not in said
    assert state_of(straight) == before


def test_the_row_at_0_edits_is_the_same_however_many_edits_follow(straight, go, tmp_path):
    one = go("n_edits=1", "eval_every=1", runs=tmp_path / "one")
    assert untimed(rows(one)[0]) == untimed(rows(straight)[0])
    assert rows(one)[0]["editing/retained/n_edits"] == 6 and rows(one)[1]["editing/retained/n_edits"] == 1


def test_what_was_begun_but_has_no_edit_yet_takes_on_what_the_first_edit_is_made_under(go, tmp_path, monkeypatch):
    """Interrupted before the first edit, continued under other code and another seedless text: nothing old is kept."""

    def stopped(*_args, **_kwargs):
        raise Interrupted(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Rome, "update", stopped)
        folder = go("n_edits=1", "eval_every=1", runs=tmp_path / "runs", rc=128 + signal.SIGTERM)
    environment, prefixes = (
        read_checked(folder / "environment.json"),
        (folder / "prefixes.json").read_bytes(),
    )
    environment["decides"]["packages"]["torch"], environment["commit"] = "1.0", "old"
    write_checked(folder / "environment.json", environment)
    write_checked(folder / "prefixes.json", {"contexts": ["An old one"], "constants": {"second_moment": "old"}})
    go("n_edits=1", "eval_every=1", runs=tmp_path / "runs")
    now = json.loads((folder / "environment.json").read_text())
    assert now["decides"]["packages"]["torch"] == torch.__version__ and now["commit"] != "old" and not now["forced"]
    assert (folder / "prefixes.json").read_bytes() == prefixes


def test_weights_that_are_not_those_measured_are_told(straight, go, capsys):
    """As after moving a run to other hardware."""
    (path,) = straight.glob("results-*.jsonl")
    records = Lines(path).records
    path.unlink()
    for record in records:
        Lines(path).append(record | ({"weights_sha256": "0" * 64} if record["n_edits"] == 2 else {}))
    go("n_edits=5", "eval_every=1", runs=straight.parent)
    said = " ".join(capsys.readouterr().out.split())
    assert "after 2 edits the weights are" in said and "hardware, threads or versions differ" in said
    assert "after 3 edits the weights are" not in said


def test_a_fact_typed_in_one_line_is_edited_and_its_answers_are_shown(go, capsys):
    typed = ("task=none", "edits.fact=The sport of {Joe DiMaggio} is → boxing", "edits.fact_true=baseball",
             "edits.fact_neighbourhood=The sport of Pelé, who won, is")  # fmt: skip
    folder = go(*typed)
    began = read_checked(folder / "environment.json")["began"]
    assert abs(datetime.now(UTC) - datetime.fromisoformat(began)) < timedelta(minutes=5)
    (record,), (path,) = Lines(folder / "edits.jsonl").records, folder.glob("immediate-*.jsonl")
    (request,) = record["requests"]
    assert (request["prompt"], request["target_new"], record["n_edits"]) == ("The sport of {} is", "boxing", 1)
    said = Lines(path).records[0]["generated"]
    asked = ["The sport of Joe DiMaggio is", "The sport of Pelé, who won, is"]
    assert [text["prompt"] for text in said] == asked
    shown = capsys.readouterr().out
    assert "what the model says" in shown and "│ prompt " in shown and "│ neighbour " in shown
    assert go(*typed) == go(*typed, "eval_every=1") == folder  # a run like any other: it is finished already
    assert read_checked(folder / "environment.json")["began"] == began
    commands = read_checked(folder / "environment.json")["commands"]
    again = [[part for part in shlex.split(command) if part.startswith("++edits.fact")] for command in commands]
    assert len(again) == 2 and "++edits.fact=['The sport of {Joe DiMaggio} is → boxing']" in again[0]
    assert len(Lines(folder / "edits.jsonl").records) == 1
