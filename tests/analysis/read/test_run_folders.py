"""Reading run directories, those of an older version too."""

from __future__ import annotations

import hashlib
import json
import math
import random
import shutil
from pathlib import Path

import pytest

from afteredit.analysis.read.run_folders import read
from afteredit.analysis.read.run_states import run_state
from afteredit.store.checked_lines import write_checked
from afteredit.store.errors import BadInput
from afteredit.tests.analysis.conftest import checked

START = {"nli": [1, 1, 1, 1, 0], "reasoning": [1, 0, 0, 0, 0]}
WORSE = {"nli": [1, 1, 1, 0, 0], "reasoning": [0, 0, 0, 0, 0]}


def test_a_folder_of_runs_gives_each_once(tmp_path, made_run):
    one = made_run(tmp_path / "runs", "rome", 1, {0: START, 5: WORSE})
    two = made_run(tmp_path / "runs", "memit", 1, {0: START})
    assert {run.name for run in read([tmp_path, one])} == {one.name, two.name}
    (run,) = read([two])
    assert (run.method, run.seed, run.n_edits, run.abilities) == ("memit", 1, 0, ["nli", "reasoning"])


def test_runs_that_are_linked_into_a_folder_are_among_its_runs(tmp_path, made_run):
    one = made_run(tmp_path / "picked", "rome", 1, {0: START})
    two = made_run(tmp_path / "all" / "more", "memit", 1, {0: START})
    (tmp_path / "picked" / two.name).symlink_to(two)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "more").symlink_to(two.parent)
    assert {run.name for run in read([tmp_path / "picked"])} == {one.name, two.name}
    assert [run.name for run in read([tmp_path / "links"])] == [two.name]


def test_the_same_run_in_two_places_is_refused(tmp_path, made_run):
    for place in ("a", "b"):
        made_run(tmp_path / place, "rome", 1, {0: START})
    with pytest.raises(BadInput, match="hold the same run; give one of them"):
        read([tmp_path])


@pytest.mark.parametrize("went_on", [False, True])
def test_a_copy_under_another_name_is_the_same_run(tmp_path, made_run, went_on):
    folder, copy = made_run(tmp_path, "rome", 1, {0: START, 5: WORSE}), tmp_path / "rome-copy"
    results = folder / "results-aaaaaaaa.jsonl"
    rows = [{**json.loads(line), "time/eval_s": 3.25 + i} for i, line in enumerate(results.read_text().splitlines())]
    results.write_text("".join(map(checked, rows)))
    shutil.copytree(folder, copy)
    if went_on:
        results.write_text("".join(map(checked, [*rows, {**rows[-1], "n_edits": 10}])))
    with pytest.raises(BadInput, match=f"{copy} and {folder} hold the same run; give one of them"):
        read([tmp_path])
    assert [run.name for run in read([copy])] == ["rome-copy"]


@pytest.mark.parametrize(("perplexity", "collapsed"), [({5: 1999.0}, None), ({5: 2001.0}, 5), ({5: math.nan}, 5)])
def test_collapse_is_as_the_run_says(tmp_path, made_run, perplexity, collapsed):
    made_run(tmp_path, "rome", 1, {0: START, 5: WORSE, 10: WORSE}, perplexity=perplexity)
    assert read([tmp_path])[0].collapsed_at == collapsed  # limit: 100 × 20


def test_an_update_of_nan_is_a_collapse(tmp_path, made_run):
    folder = made_run(tmp_path, "rome", 1, {0: START, 5: WORSE})
    lines = [checked(edit(n, str(n), **({"collapsed": 1.0} if n == 4 else {}))) for n in range(1, 6)]
    (folder / "edits.jsonl").write_text("".join(lines)[:-20], encoding="utf-8")
    assert read([tmp_path])[0].collapsed_at == 4


def edit(n_edits: int, *ids: str, immediate: tuple[float, ...] = (), **diagnostics: float) -> dict:
    requests = [{"id": name, "subject": f"Line\u2028{name}\x85", "target_new": "Rome"} for name in ids]
    scored = [{"name": "prob/efficacy", "request": ids[0], "probe": i, "score": s} for i, s in enumerate(immediate)]
    return {"n_edits": n_edits, "requests": requests, "diagnostics": diagnostics, "immediate": scored, "edit_s": 2.5}


def test_line_separators_inside_texts_end_no_line(tmp_path, made_run):
    folder = made_run(tmp_path, "rome", 1, {0: START, 5: WORSE})
    (folder / "edits.jsonl").write_text(checked(edit(1, "a")) + checked(edit(2, "b")), encoding="utf-8")
    (run,) = read([folder])
    assert [record["n_edits"] for record in run.edits] == [1, 2]
    assert run.edits[0]["requests"][0]["subject"] == "Line\u2028a\x85"


@pytest.mark.parametrize(("name", "place"), [("edits.jsonl", 1), ("results-aaaaaaaa.jsonl", 2)])
def test_a_line_that_was_altered_is_left_out_and_named(tmp_path, made_run, name, place):
    folder = made_run(tmp_path, "rome", 1, {0: START, 5: WORSE, 10: WORSE})
    path = folder / name
    records = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else [edit(1, "a"), edit(2)]
    lines = [checked(record) for record in records]
    path.write_text("".join(lines), encoding="utf-8")
    assert read([folder])
    lines[place - 1] = lines[place - 1].replace('"n_edits": ', '"n_edits": 1')
    path.write_text("".join(lines), encoding="utf-8")
    (run,) = read([folder])
    assert run.faults == (
        f"{path}:{place} is damaged: no JSON object that matches its checksum; it is left out: restore it",
    )
    assert [row["n_edits"] for row in run.rows] == ([0, 5, 10] if name == "edits.jsonl" else [0, 10])


def damaged(folder, name, text):
    (folder / name).write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: damaged(f, "config.yaml", "a: [1"), "config.yaml cannot be read"),
        (lambda f: damaged(f, "config.yaml", "- 1"), "config.yaml is no config"),
        (lambda f: damaged(f, "results-aaaaaaaa.jsonl", 'no\n{"n_edits": 5}\n'), "jsonl:1 is damaged"),
        (lambda f: damaged(f, "config.yaml", "a: &a [1]\nb: [*a, *a]"), "config.yaml cannot be read.*alias"),
        (lambda f: damaged(f, "config.yaml", "a: " + "[" * 5000 + "]" * 5000), "config.yaml cannot be read.*nested"),
        (lambda f: damaged(f, "results-aaaaaaaa.jsonl", "[" * 99999 + "\n"), "jsonl:1 is damaged"),
        (
            lambda f: damaged(f, "results-aaaaaaaa.jsonl", '{"n_edits": 0, "a": "\\ud800", "check": "0"}\n'),
            "jsonl:1 is damaged",
        ),
        (lambda f: damaged(f, "results-aaaaaaaa.jsonl", '{"n_edits": 5}\n'), "no measured checkpoint"),
        (lambda f: damaged(f, "results-aaaaaaaa.jsonl", '{"n_edits": 0, "abi'), "no measured checkpoint"),
        (lambda f: (f / "results-aaaaaaaa.jsonl").unlink(), "no measured checkpoint"),
        (lambda f: (f / "config.yaml").unlink(), "is no run directory and holds none"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path, made_run, spoil, said):
    folder = made_run(tmp_path, "rome", 1, {0: START})
    spoil(folder)
    with pytest.raises(BadInput, match=said):
        read([folder])


@pytest.mark.parametrize("name", ["aaaaaaaa (conflicted copy 2026-01-02)", "aaaaaaaa (1)", "aaaaaaaa.sync-conflict-1",
                                  "aaaaaaaa - Copy", "bbbbbbbb"])  # fmt: skip
def test_a_results_file_that_is_none_of_the_runs_is_named_and_not_counted(tmp_path, made_run, name):
    decided = {"evaluations": {"aaaaaaaa": {"view": None}}, "model": {}}
    folder = made_run(tmp_path, "rome", 1, {0: START, 5: WORSE}, environment=decided)
    (alone,) = read([folder])
    copied = folder / f"results-{name}.jsonl"
    copied.write_bytes((folder / "results-aaaaaaaa.jsonl").read_bytes())
    (run,) = read([folder])
    assert (run.evaluation, run.rows, alone.faults) == ("aaaaaaaa", alone.rows, ())
    (fault,) = run.faults
    assert fault.startswith(f"{copied} is no file of this run") and "not counted" in fault
    state = run_state(folder)
    assert list(state.evaluations) == ["aaaaaaaa"] and fault in state.faults


def test_a_row_still_being_written_is_left_out(tmp_path, made_run):
    folder = made_run(tmp_path, "rome", 1, {0: START, 5: WORSE})
    path = folder / "results-aaaaaaaa.jsonl"
    path.write_text(path.read_text()[:-20])
    (run,) = read([folder])
    assert run.n_edits == 0 and run.faults == (f"{path}:2 is incomplete; it is left out: restore it",)


def sealed(folder: Path) -> None:
    """Gives the made-up run the checksums of a real one."""
    path = folder / "results-aaaaaaaa.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    lines = {path.name: len(rows), "edits.jsonl": rows[-1]["n_edits"]}
    write_checked(folder / "environment.json", {"evaluations": {}, "model": {}, "lines": lines})
    for row in rows:
        samples = folder / "samples" / f"aaaaaaaa-{row['n_edits']:06d}.parquet"
        row["samples_sha256"] = hashlib.sha256(samples.read_bytes()).hexdigest()
    path.write_text("".join(map(checked, rows)), encoding="utf-8")


def test_no_flipped_bit_changes_a_number_in_silence(tmp_path, made_run):
    """Whatever bit of whatever file flips: it is refused or named, or the run reads as before."""
    folder = made_run(tmp_path, "rome", 1, {0: START, 5: WORSE})
    sealed(folder)
    (before,) = read([folder])
    assert not before.faults
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        for place in random.Random(0).sample(range(len(content)), 40):
            path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
            try:
                (run,) = read([folder])
            except BadInput as problem:
                assert path.name in str(problem)
                continue
            same = run.config == before.config and run.rows == before.rows and run.edits == before.edits
            assert any(path.name in fault for fault in run.faults) or (same and run.samples.equals(before.samples)), (
                path, place)  # fmt: skip
        path.write_bytes(content)


def test_examples_that_are_missing_are_named(tmp_path, made_run):
    folder = made_run(tmp_path, "rome", 1, {0: START, 5: WORSE})
    sealed(folder)
    (folder / "samples" / "aaaaaaaa-000005.parquet").unlink()
    (run,) = read([folder])
    assert len(run.faults) == 1 and "aaaaaaaa-000005.parquet is missing" in run.faults[0]


@pytest.mark.parametrize("name", ["config.yaml", "edits.jsonl", "samples", "samples/aaaaaaaa-000005.parquet"])
def test_links_out_of_a_run_directory_are_refused(tmp_path, made_run, name):
    folder = made_run(tmp_path / "runs", "rome", 1, {0: START, 5: WORSE})
    sealed(folder)
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match=f"{name} is a symbolic link"):
        read([folder])


def test_no_folder_is_refused(tmp_path):
    with pytest.raises(BadInput, match="is no folder; give run directories"):
        read([tmp_path / "absent"])


def test_success_right_after_each_edit_is_read_from_its_own_file_or_from_an_older_versions_journal(tmp_path, made_run):
    folder = made_run(tmp_path, "rome", 1, {0: START, 5: WORSE})
    made_run(tmp_path, "rome", 1, {0: START}, digest="bbbbbbbb")
    old = [edit(1, "a", immediate=(1.0,)), edit(2, "b", immediate=(0.5,))]
    (folder / "edits.jsonl").write_text("".join(map(checked, old)), encoding="utf-8")
    in_the_journal = [run.edits for run in read([folder])]
    assert [[e["immediate"][0]["score"] for e in edits] for edits in in_the_journal] == [[1.0, 0.5]] * 2

    new = [{key: value for key, value in record.items() if key != "immediate"} for record in old]
    (folder / "edits.jsonl").write_text("".join(map(checked, new)), encoding="utf-8")
    rows = [{"batch": i, "n_edits": e["n_edits"], "immediate": e["immediate"], "generated": [], "immediate_s": 0.5}
            for i, e in enumerate(old)]  # fmt: skip
    (folder / "immediate-aaaaaaaa.jsonl").write_text("".join(map(checked, rows)), encoding="utf-8")
    first, second = sorted(read([folder]), key=lambda run: run.evaluation)
    said = [{**record, "generated": []} for record in old]
    assert first.edits == said and second.edits == new  # the second evaluation measured no edit


def test_the_config_is_read_as_it_is_stored(tmp_path, made_run):
    folder = made_run(tmp_path, "rome", 1, {0: START}, config={"limit": "${nothing.there}", "rate": 1e-05})
    (run,) = read([folder])
    assert run.config["limit"] == "${nothing.there}" and run.config["rate"] == 1e-05


def test_a_config_whose_checksum_was_taken_out_is_named_and_so_is_one_of_an_older_version(tmp_path, made_run):
    folder = made_run(tmp_path, "rome", 1, {0: START})
    config = folder / "config.yaml"
    config.write_bytes(config.read_bytes().partition(b"\n")[2])
    (fault,) = read([folder])[0].faults
    assert fault.startswith(f"{config} does not match its checksum, or lacks it")
    write_checked(folder / "environment.json", {"evaluations": {}})
    (fault,) = read([folder])[0].faults
    assert fault.startswith(f"{config} was written by an older version, without a checksum")
