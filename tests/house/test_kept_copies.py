"""What docs/results keeps of a run: no texts of facts, and of rows that are not this project's no questions."""

from __future__ import annotations

import runpy
import sys

import pytest

from afteredit.analysis.read.run_folders import read_run
from afteredit.analysis.read.run_states import run_states
from afteredit.record.results import Results
from afteredit.store.checked_lines import Lines, with_check, write_checked
from afteredit.tests.house.source import ROOT

CONFIG = "data: {data}\nmethod: {{}}\ntask:\n  nli: {{chance: 0.5}}\nseed: 1\n"
QUESTION = {"n_edits": 0, "kind": "ability", "doc_id": 0.0, "numerator": 1.0, "denominator": 1.0,
            "question": "Where is it?", "wanted": "Oslo", "choices": '["Oslo", "Lima"]'}  # fmt: skip
ROW = {"drift/perplexity": 20.0, "ability/nli": 1.0, "weights_sha256": "1", "evaluator": "e"}


@pytest.mark.parametrize("data", ["mini", "/rows/of/others"])
def test_a_copy_holds_what_the_model_said_and_questions_of_embedded_rows_alone(tmp_path, monkeypatch, data):
    run = tmp_path / "runs" / "rome-tiny-1"
    run.mkdir(parents=True)
    (run / "config.yaml").write_bytes(with_check(CONFIG.format(data=data).encode()))
    write_checked(run / "environment.json", {"model": {}, "facts": "f"})
    results = Results(run, "aaaaaaaa")
    shipped = {**QUESTION, "name": "hellaswag", "question": "From lm-eval?", "wanted": "Bern", "choices": "[]"}
    edited = {"n_edits": 0, "kind": "retained", "name": "generated/efficacy", "score": 1.0, "answer": " Chad"}
    results.append({"n_edits": 0, **ROW}, [{**QUESTION, "name": "nli", "answer": "Said", "choice": 1}, shipped, edited])
    Lines(run / "edits.jsonl").append({"batch": 0, "n_edits": 1, "requests": [{"id": "f1", "prompt": "Fact"}]})
    said = {"request": "f1", "group": "efficacy", "prompt": "Fact is", "before": " Peru", "after": " Chad"}
    Lines(run / "immediate-aaaaaaaa.jsonl").append({"batch": 0, "n_edits": 1, "immediate": [], "generated": [said]})

    monkeypatch.setattr(sys, "argv", ["keep_examples.py", str(run.parent), str(tmp_path / "kept")])
    runpy.run_path(str(ROOT / "docs/results/keep_examples.py"), run_name="__main__")
    kept = tmp_path / "kept" / run.name
    content = b"".join(path.read_bytes() for path in kept.rglob("*") if path.is_file()).decode(errors="replace")
    own = data == "mini"
    assert "Said" in content and " Chad" in content and " Peru" in content and "Fact" not in content
    assert [text in content for text in ("Where is it?", "Oslo", "Lima")] == [own] * 3
    assert not any(text in content for text in ("From lm-eval?", "Bern"))
    (read,) = read_run(kept)
    assert not read.faults and read.samples["answer"].dropna().tolist() == ["Said", " Chad"]
    assert read.samples["question"].dropna().tolist() == ["Where is it?"] * own and read.samples["choice"][0] == 1


def test_a_copy_without_examples_holds_a_fact_s_id_and_what_it_took(tmp_path, monkeypatch):
    run = tmp_path / "rome-tiny-1"
    run.mkdir()
    (run / "config.yaml").write_bytes(with_check(CONFIG.format(data="mini").encode()))
    Results(run, "aaaaaaaa").append({"n_edits": 0, **ROW}, [])
    line = {"batch": 0, "n_edits": 1, "requests": [{"id": "f1", "prompt": "Fact"}], "edit_s": 2.5}
    Lines(run / "edits.jsonl").append({**line, "diagnostics": {"kl": 0.25}})

    for _ in range(2):  # keeping it again puts the copy in its place
        monkeypatch.setattr(sys, "argv", ["keep.py", str(run), str(tmp_path / "kept")])
        runpy.run_path(str(ROOT / "docs/results/keep.py"), run_name="__main__")
    (state,) = run_states(tmp_path / "kept")
    kept = {"n_edits": 1, "requests": [{"id": "f1"}], "edit_s": 2.5, "diagnostics": {"kl": 0.25}}
    assert list(state.edits) == [kept] and not state.faults


def test_every_kept_run_is_whole():
    folders = sorted({path.parent for path in (ROOT / "docs/results").rglob("config.yaml")})
    states = [state for folder in folders for state in run_states(folder)]
    assert len(states) >= 30 and {state.folder.name: state.faults for state in states if state.faults} == {}
