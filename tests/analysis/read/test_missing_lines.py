"""What was taken out of a run directory, or put into it with a right checksum, is named."""

from __future__ import annotations

import hashlib
import json
import os
import resource
from pathlib import Path

import pandas as pd
import pytest
import yaml

from afteredit.analysis.__main__ import main
from afteredit.analysis.read.run_folders import read
from afteredit.store.checked_lines import read_checked, with_check, write_checked
from afteredit.store.errors import BadInput
from afteredit.tests.analysis.conftest import checked

START = {"nli": [1, 1, 1, 1, 0], "reasoning": [1, 0, 0, 0, 0]}
WORSE = {"nli": [1, 1, 1, 0, 0], "reasoning": [0, 0, 0, 0, 0]}
SMALL = ("methods", "drops")  # parts of the report that are quick to make
RESULTS, IMMEDIATE = "results-aaaaaaaa.jsonl", "immediate-aaaaaaaa.jsonl"


@pytest.fixture
def folder(tmp_path, made_run, only_parts) -> Path:
    """A whole run of five edits, measured three times; environment.json says how many lines there are."""
    only_parts(*SMALL)
    made = made_run(tmp_path, "rome", 1, {0: START, 3: WORSE, 5: WORSE})
    rows = [{"batch": i, "n_edits": i + 1, "immediate": [{"name": "prob/efficacy", "score": 1.0}], "generated": []}
            for i in range(5)]  # fmt: skip
    (made / IMMEDIATE).write_text("".join(map(checked, rows)), encoding="utf-8")
    lines = {"edits.jsonl": 5, IMMEDIATE: 5, RESULTS: 3}
    write_checked(made / "environment.json", read_checked(made / "environment.json") | {"lines": lines})
    assert not read([made])[0].faults
    return made


def without_lines(*places: int):
    def take_out(path: Path) -> None:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        path.write_text("".join(line for place, line in enumerate(lines) if place - len(lines) not in places))

    return take_out


def without_checks(path: Path) -> None:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    path.write_text("".join(json.dumps({k: v for k, v in line.items() if k != "check"}) + "\n" for line in lines))


@pytest.mark.parametrize("name", ["edits.jsonl", RESULTS, IMMEDIATE])
@pytest.mark.parametrize("harm", [without_lines(-2), without_lines(-1), Path.unlink], ids=["middle", "end", "all"])
def test_lines_and_files_that_are_missing_are_named(folder, name, harm):
    harm(folder / name)
    if name == RESULTS and harm is Path.unlink:
        with pytest.raises(BadInput, match=f"{name} is missing; restore it"):
            read([folder])
        return
    (fault,) = read([folder])[0].faults
    assert str(folder / name) in fault and "restore" in fault
    if harm is Path.unlink:
        assert main(["report", str(folder), "--out", str(folder.parent / "out")]) == 1


def test_edits_that_were_measured_and_are_not_there_are_named_without_a_count_of_lines_too(folder):
    write_checked(folder / "environment.json", {"model": {}, "evaluations": {}})
    without_lines(-1, -2)(folder / "edits.jsonl")
    (fault,) = read([folder])[0].faults
    assert fault == f"{folder}/edits.jsonl holds 3 edits, but {RESULTS} measured 5; restore it"


def test_a_missing_environment_is_named(folder):
    (folder / "environment.json").unlink()
    (fault,) = read([folder])[0].faults
    assert "environment.json is missing or damaged" in fault


@pytest.mark.parametrize("name", ["edits.jsonl", IMMEDIATE])
def test_lines_whose_checksums_were_taken_out_are_named_one_by_one(folder, name):
    without_checks(folder / name)
    (run,) = read([folder])
    assert len(run.faults) == 5 and all(f"{name}:" in fault and "is damaged" in fault for fault in run.faults)


def test_no_row_without_a_checksum_is_shown(folder):
    without_checks(folder / RESULTS)
    with pytest.raises(BadInput, match=r"holds no measured checkpoint .*jsonl:1 is damaged.*jsonl:3 is damaged"):
        read([folder])


def test_an_older_versions_lines_without_a_checksum_are_read_and_that_is_said(folder):
    write_checked(folder / "environment.json", {"commit": "abc"})
    for name in ("edits.jsonl", RESULTS):
        without_checks(folder / name)
    (run,) = read([folder])
    assert [row["n_edits"] for row in run.rows] == [0, 3, 5]
    assert [fault.split(" was written by an older version, ")[0] for fault in run.faults] == [
        str(folder / "edits.jsonl"), str(folder / RESULTS)]  # fmt: skip


HOSTILE = {  # what the second line of the file is given; what is said of it
    "n_edits_nan": (RESULTS, {"n_edits": float("nan")}, "n_edits is nan, not a number of edits"),
    "n_edits_text": (RESULTS, {"n_edits": "3"}, "n_edits is '3', not a number"),
    "n_edits_true": (RESULTS, {"n_edits": True}, "n_edits is True, not a number"),
    "n_edits_huge": (RESULTS, {"n_edits": 10**30}, "not a number of edits"),
    "n_edits_below_0": ("edits.jsonl", {"n_edits": -1}, "n_edits is -1, not a number"),
    "n_edits_none": ("edits.jsonl", {"n_edits": None}, "n_edits is None, not a number"),
    "score_text": (RESULTS, {"ability/nli": "0.9"}, "ability/nli is '0.9', not a number"),
    "score_list": (RESULTS, {"drift/perplexity": [1.0]}, "drift/perplexity is [1.0], not a number"),
    "score_huge": (RESULTS, {"drift/perplexity": 10**400}, "not a number"),
    "score_none": (RESULTS, {"ability/reasoning/gold_nll": None}, "gold_nll is None, not a number"),
    "score_lost": (RESULTS, {"ability/nli": ...}, "ability/nli is not in it"),
    "perplexity_lost": (RESULTS, {"drift/perplexity": ...}, "drift/perplexity is not in it"),
    "chance_list": (RESULTS, {"chance": [1]}, "chance is [1], not a number for each"),
    "measurable_text": (RESULTS, {"measurable": "nli"}, "measurable is 'nli', not a list"),
    "samples_number": (RESULTS, {"samples_sha256": 7}, "samples_sha256 is 7, not a text"),
    "row_again": (RESULTS, {"n_edits": 0}, "a row before it has other numbers for n_edits=0"),
    "requests_text": ("edits.jsonl", {"requests": "abc"}, "requests is 'abc', not a list"),
    "diagnostics_text": ("edits.jsonl", {"diagnostics": {"loss": "1"}}, "diagnostics is {'loss': '1'}, not numbers"),
    "seconds_text": ("edits.jsonl", {"edit_s": "1"}, "edit_s is '1', not a number"),
    "batch_text": (IMMEDIATE, {"batch": "1"}, "batch is '1'"),
    "scores_text": (IMMEDIATE, {"immediate": [{"name": "a", "score": "1"}]}, "not a list of scores"),
    "scores_number": (IMMEDIATE, {"immediate": 3}, "immediate is 3, not a list of scores"),
    "texts_number": (IMMEDIATE, {"generated": [3]}, "generated is [3], not a list of texts"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_line_with_a_right_checksum_that_holds_what_no_run_writes_is_left_out_and_named(folder, case):
    name, given, said = HOSTILE[case]
    records = [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]
    records[1] = {key: value for key, value in {**records[1], **given}.items() if value is not ...}
    (folder / name).write_text("".join(map(checked, records)), encoding="utf-8")
    (run,) = read([folder])
    assert any(fault.startswith(f"{folder / name}:2 is damaged: ") and said in fault for fault in run.faults)
    assert len(run.rows) == 3 - (name == RESULTS)
    if case in ("n_edits_nan", "requests_text", "scores_text"):  # one of each file
        assert main(["report", str(folder), "--out", str(folder.parent / "out")]) == 1


@pytest.mark.parametrize("given", ["seed: x", "collapse_perplexity: [1]", "batch_size: 1.5", "seed: -1",
                                   "method: {_target_: x}", "constraint: {_target_: [1]}", "harness: 3",
                                   "task: {nli: {chance: abc}}"])  # fmt: skip
def test_a_config_whose_numbers_are_none_is_refused(folder, given):
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")) | yaml.safe_load(given)
    (folder / "config.yaml").write_bytes(with_check(yaml.safe_dump(config).encode()))
    with pytest.raises(BadInput, match=f"config.yaml: {given.partition(':')[0]}[^ ]* is .*not a"):
        read([folder])


@pytest.mark.parametrize("evaluations", [[1], {"aaaaaaaa": 3}, {"aaaaaaaa": {"view": "x"}}, {"a": {"view": {"b": 1}}}])
def test_measurements_that_are_none_are_named(folder, evaluations):
    write_checked(folder / "environment.json", {"model": {}, "evaluations": evaluations})
    assert any("environment.json is missing or damaged" in fault for fault in read([folder])[0].faults)


@pytest.mark.parametrize("columns", [{}, {"n_edits": ["a"]}, {"n_edits": [0], "kind": [1]},
                                     {"n_edits": [0], "kind": ["ability"], "name": ["nli"], "doc_id": ["x"]},
                                     {"n_edits": [0], "kind": ["ability"], "name": ["nli"], "doc_id": [[1]]},
                                     {"n_edits": [0], "kind": ["ability"], "doc_id": [1]}])  # fmt: skip
def test_examples_with_other_columns_are_named(folder, columns):
    path = folder / "samples" / "aaaaaaaa-000000.parquet"
    pd.DataFrame(columns).to_parquet(path, index=False)
    rows = [json.loads(line) for line in (folder / RESULTS).read_text().splitlines()]
    rows[0]["samples_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / RESULTS).write_text("".join(map(checked, rows)), encoding="utf-8")
    assert len(read([folder])[0].faults) == (1 if columns else 0)


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("name", ["config.yaml", "edits.jsonl", RESULTS, "environment.json", IMMEDIATE,
                                  "samples/aaaaaaaa-000003.parquet"])  # fmt: skip
@pytest.mark.parametrize(("put", "said"), [(as_folder, "is a folder, where a run has a file"),
                                           (as_pipe, "is neither a file nor a folder")])  # fmt: skip
def test_what_stands_in_the_place_of_a_file_is_refused_by_what_it_is(folder, name, put, said, capsys):
    put(folder / name)
    assert main(["report", str(folder), "--out", str(folder.parent / "out")]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert said in error and name in error and "make room" not in error


def test_a_file_in_the_place_of_a_folder_is_refused(folder):
    for path in (folder / "samples").iterdir():
        path.unlink()
    (folder / "samples").rmdir()
    (folder / "samples").write_text("x")
    with pytest.raises(BadInput, match="samples is no folder"):
        read([folder])


@pytest.mark.parametrize("room", [100, 3000])
def test_a_report_that_finds_no_room_says_so_and_leaves_the_one_before_whole(folder, room, capsys):
    out = folder.parent / "out"
    assert main(["report", str(folder), "--out", str(out)]) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        assert main(["report", str(folder), "--out", str(out)]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    error = " ".join(capsys.readouterr().err.split())
    assert f"the report cannot be written to {out} (File too large" in error and "make room, or give another" in error
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
