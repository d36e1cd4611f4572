"""Reading run directories, and telling what may be compared."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest

from afteredit.analysis.comparison import common_checkpoints, comparisons
from afteredit.analysis.tidy import BadResults, metrics_table, paired, read, read_run, samples_table

TASKS = {"nli": {"chance": 0.5}, "reasoning": {"chance": 0.0}}
START = {"nli": [1, 1, 1, 1, 0], "reasoning": [1, 0, 0, 0, 0]}
WORSE = {"nli": [1, 1, 1, 0, 0], "reasoning": [0, 0, 0, 0, 0]}


def test_a_folder_of_runs_gives_each_once(tmp_path, made_run):
    one = made_run(tmp_path / "runs", "rome", 1, {0: START, 5: WORSE})
    two = made_run(tmp_path / "runs", "memit", 1, {0: START})
    assert {run.name for run in read([tmp_path, one])} == {one.name, two.name}
    (run,) = read([two])
    assert (run.method, run.seed, run.n_edits, run.abilities) == ("memit", 1, 0, ["nli", "reasoning"])


def test_the_same_run_in_two_places_is_refused(tmp_path, made_run):
    for place in ("a", "b"):
        made_run(tmp_path / place, "rome", 1, {0: START})
    with pytest.raises(BadResults, match="hold the same run; give one of them"):
        read([tmp_path])


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


def test_every_number_and_every_example_is_in_the_tables(tmp_path, made_run):
    made_run(tmp_path, "rome", 3, {0: START, 5: WORSE})
    (x,) = comparisons(read([tmp_path]))
    metrics, samples = metrics_table(x.runs), samples_table(x.runs)
    (value,) = metrics[(metrics["n_edits"] == 5) & (metrics["metric"] == "ability/nli")]["value"]
    assert value == 0.6 and set(metrics["seed"]) == {3} and "measurable" not in set(metrics["metric"])
    assert len(samples) == 20 and samples[samples["n_edits"] == 5]["numerator"].sum() == 3


@pytest.mark.parametrize(("perplexity", "collapsed"), [({5: 1999.0}, None), ({5: 2001.0}, 5), ({5: math.nan}, 5)])
def test_collapse_is_as_the_run_says(tmp_path, made_run, perplexity, collapsed):
    made_run(tmp_path, "rome", 1, {0: START, 5: WORSE, 10: WORSE}, perplexity=perplexity)
    assert read([tmp_path])[0].collapsed_at == collapsed  # limit: 100 × 20


def test_an_update_of_nan_is_a_collapse(tmp_path, made_run):
    folder = made_run(tmp_path, "rome", 1, {0: START, 5: WORSE})
    (folder / "edits.jsonl").write_text('{"n_edits": 3, "diagnostics": {}}\n{"n_edits": 4, "diagnostics": '
                                        '{"collapsed": 1.0}}\n{"n_edi')  # fmt: skip
    assert read([tmp_path])[0].collapsed_at == 4


def test_methods_are_told_apart_by_what_differs_and_not_by_seed(tmp_path, made_run):
    target = "afteredit.edit.rome.Rome"
    for seed, layer in ((1, 8), (2, 8), (3, 9)):
        made_run(tmp_path, "rome", seed, {0: START}, config={"method": {"_target_": target, "layer": layer}})
    rect = {"_target_": "afteredit.edit.rect.Rect", "keep": 0.4}
    made_run(tmp_path, "memit", 4, {0: START}, config={"constraint": rect, "tracker": {"tags": ["x"]}})
    (x,) = comparisons(read([tmp_path]))
    seeds = {label: [run.seed for run in runs] for label, runs in x.runs.items()}
    assert seeds == {"memit+rect": [4], "rome (layer=8)": [1, 2], "rome (layer=9)": [3]}


@pytest.mark.parametrize("other", [{"model": {"name": "large"}}, {"edits": {"name": "zsre"}}, {"setting": "single"}])
def test_what_was_not_measured_alike_is_never_compared(tmp_path, made_run, other):
    made_run(tmp_path, "rome", 1, {0: START})
    made_run(tmp_path, "rome", 2, {0: START}, config=other)
    assert [list(map(len, x.runs.values())) for x in comparisons(read([tmp_path]))] == [[1], [1]]


def test_two_evaluations_of_one_run_are_two_comparisons_each_with_its_own_examples(tmp_path, made_run):
    made_run(tmp_path, "rome", 1, {0: START, 5: WORSE})
    made_run(tmp_path, "rome", 1, {0: START, 5: START, 10: START}, digest="bbbbbbbb")
    first, second = comparisons(read([tmp_path]))
    assert "evaluation aaaaaaaa" in first.title and "evaluation bbbbbbbb" in second.title
    assert [common_checkpoints(list(x.runs.values())[0]) for x in (first, second)] == [[0, 5], [0, 5, 10]]
    changes = [x.curves.query("n_edits == 5 and curve == 'ability/nli'")["value"].item() for x in (first, second)]
    assert changes == pytest.approx([-0.2, 0.0])


def test_curves_are_means_over_runs_where_all_have_a_checkpoint(tmp_path, made_run):
    made_run(tmp_path, "rome", 1, {0: START, 5: WORSE, 10: WORSE})
    made_run(tmp_path, "rome", 2, {0: START, 5: START})
    (x,) = comparisons(read([tmp_path]))
    curve = x.curves.set_index(["curve", "n_edits"])
    assert set(x.curves["n_edits"]) == {0, 5} and set(x.curves["n_runs"]) == {2}
    assert curve.loc[("ability/nli", 5), "value"] == pytest.approx(-0.1)
    assert curve.loc[("ability/nli/gold_nll", 5), "value"] == pytest.approx(0.1)
    assert curve.loc[("retained", 5), "value"] == pytest.approx((1 / 3 + 1) / 2)  # (0.6 - 0.5) / (0.8 - 0.5)
    low, high = curve.loc[("retained", 5), ["low", "high"]]
    assert low < 2 / 3 < high
    assert curve.loc[("retained", 0), ["value", "low", "high"]].tolist() == [1, 1, 1]


def test_without_examples_there_are_curves_and_no_bands(tmp_path, made_run):
    folder = made_run(tmp_path, "rome", 1, {0: START, 5: WORSE})
    for path in (folder / "samples").iterdir():
        path.unlink()
    (x,) = comparisons(read([tmp_path]))
    assert x.curves["value"].notna().all() and x.curves["low"].isna().all()


def damaged(folder, name, text):
    (folder / name).write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: damaged(f, "config.yaml", "a: [1"), "config.yaml cannot be read"),
        (lambda f: damaged(f, "config.yaml", "- 1"), "config.yaml is no config"),
        (lambda f: damaged(f, "results-aaaaaaaa.jsonl", 'no\n{"n_edits": 0}\n'), "jsonl:1 is damaged"),
        (lambda f: damaged(f, "results-aaaaaaaa.jsonl", '{"n_edits": 5}\n'), "no measured checkpoint"),
        (lambda f: damaged(f, "results-aaaaaaaa.jsonl", '{"n_edits": 0, "abi'), "no measured checkpoint"),
        (lambda f: (f / "results-aaaaaaaa.jsonl").unlink(), "no measured checkpoint"),
        (lambda f: (f / "config.yaml").unlink(), "is no run directory and has none below"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path, made_run, spoil, said):
    folder = made_run(tmp_path, "rome", 1, {0: START})
    spoil(folder)
    with pytest.raises(BadResults, match=said):
        read([folder])


def test_a_row_still_being_written_is_left_out(tmp_path, made_run):
    folder = made_run(tmp_path, "rome", 1, {0: START, 5: WORSE})
    path = folder / "results-aaaaaaaa.jsonl"
    path.write_text(path.read_text()[:-20])
    assert read([folder])[0].n_edits == 0


def test_no_folder_is_refused(tmp_path):
    with pytest.raises(BadResults, match="is no folder; give run directories"):
        read([tmp_path / "absent"])


def test_chance_is_the_results_own_else_the_configs_else_not_known(tmp_path, made_run):
    """A task that lm-eval ships (`harness=[…]`) has its chance in the results only."""
    folder = made_run(tmp_path, "rome", 1, {0: {**START, "arc": [1, 0]}}, tasks={**TASKS, "arc": {}})
    (unknown,) = comparisons(read([folder]))
    assert unknown.chance["nli"] == 0.5 and math.isnan(unknown.chance["arc"])
    path = folder / "results-aaaaaaaa.jsonl"
    row = json.loads(path.read_text())
    path.write_text(json.dumps({**row, "chance": {"arc": 0.25}, "measurable": ["nli", "arc"]}) + "\n")
    (known,) = comparisons(read([folder]))
    assert known.chance == {"nli": 0.5, "reasoning": 0.0, "arc": 0.25} and known.measurable == ["nli", "arc"]
