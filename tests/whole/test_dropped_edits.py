"""Edits that an anchor leaves unwritten are asked about like all others, count in every mean, and are added up."""

from __future__ import annotations

import pandas as pd
import pytest

from afteredit.analysis.read.run_folders import read_run
from afteredit.analysis.tables.run_end import run_end
from afteredit.run import main
from afteredit.store.checked_lines import Lines

N_EDITS = 6


@pytest.fixture(scope="module")
def run(tmp_path_factory, save_tiny_llama):
    place = tmp_path_factory.mktemp("tiny")
    save_tiny_llama(place / "model")
    (place / "text.txt").write_text("The old town has a market, and people come to buy fish and bread.\n" * 30)
    method = ["method=memit_seq", "method.layers=[0,1]", "method.second_moment_weight=1", "method.value_steps=3",
              "method.contexts=1", f"method.second_moment_text={place}/text.txt", "method.tokens_per_key_dim=8",
              "method.value_norm=anchor", "method.pilot_edits=6", "method.drop_above=1.0"]  # fmt: skip
    measured = ["task=none", "held_out_tokens=64", "device=cpu", "tracker=none", f"runs={place}/runs"]
    edits = [f"n_edits={N_EDITS}", "batch_size=2", "eval_every=2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AFTEREDIT_CACHE", str(place / "cache"))
        assert main(["model=hf", f"model.source={place}/model", *method, *measured, *edits]) == 0
    (folder,) = (place / "runs").iterdir()
    return folder


@pytest.fixture(scope="module")
def journal(run):
    return Lines(run / "edits.jsonl").records


def test_some_edits_of_this_run_were_dropped_and_some_written(journal):
    assert 0 < sum(record["diagnostics"]["dropped"] for record in journal) < N_EDITS
    assert all(len(record["requests"]) == 2 for record in journal) and journal[-1]["n_edits"] == N_EDITS


def test_every_edit_is_asked_about_right_after_its_batch(run, journal):
    (path,) = run.glob("immediate-*.jsonl")
    for record, row in zip(journal, Lines(path).records, strict=True):
        asked = {sample["request"] for sample in row["immediate"] if sample["name"] == "prob/efficacy"}
        assert asked == {request["id"] for request in record["requests"]}


@pytest.mark.parametrize("way", ["prob", "forced", "generated"])
def test_every_edit_is_in_the_mean_of_what_is_retained(run, journal, way):
    (results,) = run.glob("results-*.jsonl")
    for row in Lines(results).records[1:]:
        samples = pd.read_parquet(next(run.glob(f"samples/*-{row['n_edits']:06d}.parquet")))
        asked = samples[(samples["kind"] == "retained") & (samples["name"] == f"{way}/efficacy")]
        written_so_far = [
            r["id"] for record in journal if record["n_edits"] <= row["n_edits"] for r in record["requests"]
        ]
        assert sorted(asked["request"]) == sorted(written_so_far)
        assert row[f"editing/retained/{way}/efficacy"] == pytest.approx(asked["score"].sum() / len(written_so_far))


def test_the_end_says_how_many_were_dropped(run, journal):
    (only,) = read_run(run)
    end = run_end(run, only.evaluation, N_EDITS)
    n_dropped = sum(record["diagnostics"]["dropped"] for record in journal)
    assert end.summary["summary/dropped"] == n_dropped
    assert f"{n_dropped:.0f} of {N_EDITS} edits not written" in str(end.tables[1].caption)
    half = run_end(run, only.evaluation, 2)
    assert half.summary["summary/dropped"] == journal[0]["diagnostics"]["dropped"]
