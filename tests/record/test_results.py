"""The results file: sorted rows, samples beside them, a torn line is dropped."""

from __future__ import annotations

import hashlib

import pandas as pd
import pytest

from afteredit.record.results import Results
from afteredit.store.errors import BadInput

SAMPLES = [{"kind": "ability", "name": "nli", "doc_id": 0, "numerator": 1.0}, {"kind": "retained", "request": "f1"}]

SCORE = {"drift/perplexity": 20.5}


def sha256(results: Results, n_edits: int) -> str:
    return hashlib.sha256(results.samples_path(n_edits).read_bytes()).hexdigest()


def test_rows_come_sorted_and_are_still_there_when_opened_again(tmp_path):
    results = Results(tmp_path, "abcd")
    for n in (0, 10, 5):
        results.append({"n_edits": n, **SCORE, "ability/nli": n / 10, "weights_sha256": f"{n}"}, SAMPLES)
    for opened in (results, Results(tmp_path, "abcd")):
        assert [row["n_edits"] for row in opened.rows] == [0, 5, 10]
        assert opened.row(5) == {
            "n_edits": 5,
            **SCORE,
            "ability/nli": 0.5,
            "weights_sha256": "5",
            "samples_sha256": sha256(results, 5),
        }
        assert opened.has(10) and not opened.has(1)
    assert Results(tmp_path, "other").rows == []


def test_samples_are_a_readable_table(tmp_path):
    results = Results(tmp_path, "abcd")
    results.append({"n_edits": 3}, SAMPLES)
    frame = pd.read_parquet(results.samples_path(3))
    assert frame["kind"].tolist() == ["ability", "retained"]
    assert frame["numerator"][0] == 1.0 and pd.isna(frame["numerator"][1])


def test_a_checkpoint_without_samples_is_kept_too(tmp_path):
    results = Results(tmp_path, "abcd")
    results.append({"n_edits": 0}, [])
    assert len(pd.read_parquet(results.samples_path(0))) == 0 and results.has(0)


def test_a_torn_last_line_is_dropped_and_written_anew(tmp_path):
    results = Results(tmp_path, "abcd")
    results.append({"n_edits": 0, **SCORE}, SAMPLES)
    whole = results.path.read_bytes()
    results.append({"n_edits": 1, **SCORE}, SAMPLES)
    results.path.write_bytes(results.path.read_bytes()[:-9])
    again = Results(tmp_path, "abcd")
    assert [row["n_edits"] for row in again.rows] == [0] and not again.has(1)
    assert results.path.read_bytes() == whole
    assert (tmp_path / "results-abcd.jsonl.damaged").exists()
    again.append({"n_edits": 1, **SCORE}, SAMPLES)
    assert Results(tmp_path, "abcd").rows == results.rows


@pytest.mark.parametrize("harm", ["altered", "missing"])
def test_samples_that_are_not_those_of_their_row_are_named(tmp_path, harm):
    results = Results(tmp_path, "abcd")
    for n in (0, 5):
        results.append({"n_edits": n, **SCORE}, SAMPLES)
    path = results.samples_path(5)
    content = path.read_bytes()
    path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]) if harm == "altered" else path.unlink()
    with pytest.raises(BadInput, match=r"abcd-000005.parquet is missing or does not match.*all edits are kept"):
        Results(tmp_path, "abcd")
    path.write_bytes(content)
    assert len(Results(tmp_path, "abcd").rows) == 2


ASKED = {"kind": "ability", "name": "open_qa", "question": "Where is Lima?", "wanted": "Peru"}
SAID = {"kind": "ability", "name": "open_qa", "numerator": 1.0, "answer": " Peru", "log_likelihoods": None}
CHOSEN = {"kind": "ability", "name": "nli", "numerator": 0.0, "choice": 1, "log_likelihoods": [-2.5, -0.25]}


def test_what_the_model_said_comes_back_and_a_text_stands_once_for_all_checkpoints(tmp_path):
    results = Results(tmp_path, "abcd")
    results.append({"n_edits": 0, **SCORE}, [{**SAID, **ASKED}, CHOSEN, SAMPLES[1]])
    size = (tmp_path / "samples" / "texts.jsonl").stat().st_size
    results.append({"n_edits": 5, **SCORE}, [SAID, CHOSEN])
    assert (tmp_path / "samples" / "texts.jsonl").stat().st_size == size
    results.append({"n_edits": 10, **SCORE}, [{**SAID, "answer": " Chad"}])
    again = Results(tmp_path, "abcd")
    first, second, third = again.samples(0)
    assert {k: v for k, v in first.items() if v is not None} == {
        k: v for k, v in {**SAID, **ASKED}.items() if v is not None}  # fmt: skip
    assert {k: second[k] for k in CHOSEN} == CHOSEN and third["answer"] is None
    assert [again.samples(n)[0]["answer"] for n in (5, 10)] == [" Peru", " Chad"]
    content = again.samples_path(0).read_bytes()
    again.replace({"n_edits": 0, **SCORE}, again.samples(0))
    assert again.samples_path(0).read_bytes() == content


def test_examples_that_git_has_not_fetched_are_named_as_such(tmp_path):
    results = Results(tmp_path, "abcd")
    results.append({"n_edits": 0, **SCORE}, [{**SAID, **ASKED}])
    results.samples_path(0).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:46\nsize 9\n")
    with pytest.raises(BadInput, match="abcd-000000.parquet is a pointer of Git LFS .*git lfs pull"):
        Results(tmp_path, "abcd")


def test_texts_that_are_missing_are_named(tmp_path):
    results = Results(tmp_path, "abcd")
    results.append({"n_edits": 0, **SCORE}, [{**SAID, **ASKED}])
    results.append({"n_edits": 5, **SCORE}, [{**SAID, "answer": " Chad"}])
    path = tmp_path / "samples" / "texts.jsonl"
    path.write_text(path.read_text().splitlines(keepends=True)[0])
    with pytest.raises(BadInput, match=r"texts.jsonl lacks 1 texts to which abcd-000005.parquet refers; restore it"):
        Results(tmp_path, "abcd")
