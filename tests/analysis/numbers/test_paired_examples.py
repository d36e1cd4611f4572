"""Examples before and after the edits, paired."""

from __future__ import annotations

import math

import pandas as pd

from afteredit.analysis.numbers.paired_examples import paired
from afteredit.analysis.read.run_folders import read_run

START = {"nli": [1, 1, 1, 1, 0], "reasoning": [1, 0, 0, 0, 0]}
WORSE = {"nli": [1, 1, 1, 0, 0], "reasoning": [0, 0, 0, 0, 0]}


def test_examples_are_paired_by_document_not_by_place(tmp_path, made_run):
    folder = made_run(tmp_path, "rome", 1, {0: START, 5: WORSE})
    path = folder / "samples" / "aaaaaaaa-000005.parquet"
    samples = pd.read_parquet(path)
    samples[samples["doc_id"] != 1.0].iloc[::-1].to_parquet(path)  # other order, one document missing
    pairs = paired(read_run(folder), "nli", 5)
    assert pairs is not None
    before, after = pairs
    assert before[0].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]  # documents 0, 2, 3, 4
    assert after[0].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert paired(read_run(folder), "nli", 10) is None


def test_gold_nll_is_paired_too_without_the_examples_that_have_none(tmp_path, made_run):
    folder = made_run(tmp_path, "rome", 1, {0: START, 5: WORSE})
    path = folder / "samples" / "aaaaaaaa-000000.parquet"
    samples = pd.read_parquet(path)
    samples.loc[(samples["name"] == "nli") & (samples["doc_id"] == 0), "gold_nll"] = math.nan
    samples.to_parquet(path)
    pairs = paired(read_run(folder), "nli", 5, gold=True)
    assert pairs is not None and pairs[1][0].tolist() == [[0, 0, 1, 1], [1, 1, 1, 1]]
