"""The texts of the examples are read in place of their references; what is missing or damaged is named."""

from __future__ import annotations

import pytest

from afteredit.analysis.read.run_folders import read_run
from afteredit.record.results import Results

ROW = {"drift/perplexity": 20.0, "ability/nli": 1.0, "weights_sha256": "1", "evaluator": "e"}
SAID = {"kind": "ability", "name": "nli", "doc_id": 0.0, "numerator": 1.0, "denominator": 1.0}


@pytest.fixture
def folder(tmp_path, made_run):
    """A run of which two checkpoints were made by the program itself."""
    folder = made_run(tmp_path, "rome", 1, {0: {"nli": [1.0]}, 5: {"nli": [1.0]}})
    results = Results(folder, "bbbbbbbb")
    results.append({"n_edits": 0, **ROW}, [{"n_edits": 0, **SAID, "question": "Where?", "answer": "Oslo"}])
    results.append({"n_edits": 5, **ROW}, [{"n_edits": 5, **SAID, "answer": "Chad"}])
    return folder


def test_texts_are_read(folder):
    (run,) = read_run(folder, evaluation="bbbbbbbb")
    assert not run.faults and run.samples["answer"].tolist() == ["Oslo", "Chad"]
    assert run.samples["question"][0] == "Where?" and run.samples["question"].isna().tolist() == [False, True]
    (older,) = read_run(folder, evaluation="aaaaaaaa")
    assert not older.faults and "answer" not in older.samples and len(older.samples) == 2


@pytest.mark.parametrize(
    ("harm", "said", "left"),
    [(lambda text: text.replace("Chad", "Mali"), r"texts.jsonl:2 is damaged", ["Oslo", None]),
     (lambda text: text.splitlines(keepends=True)[0], "texts.jsonl lacks 1 texts of the examples", ["Oslo", None]),
     (lambda _text: "", "texts.jsonl lacks 3 texts of the examples", [None, None])],
)  # fmt: skip
def test_missing_and_damaged_texts_are_named(folder, harm, said, left):
    path = folder / "samples" / "texts.jsonl"
    path.write_text(harm(path.read_text()))
    (run,) = read_run(folder, evaluation="bbbbbbbb")
    assert len(run.faults) == 1 and said.split()[0] in run.faults[0] and said in run.faults[0]
    answers = [text if isinstance(text, str) else None for text in run.samples["answer"]]
    assert answers == left and run.samples["numerator"].tolist() == [1.0, 1.0]
