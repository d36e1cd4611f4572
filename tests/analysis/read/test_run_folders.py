"""Reading run directories, and telling what may be compared."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import pandas as pd
import pytest
import yaml

from afteredit.analysis.numbers.comparison import NOT_OF_A_METHOD, common_checkpoints, comparisons
from afteredit.analysis.numbers.flat_tables import edits_table, metrics_table, samples_table
from afteredit.analysis.read.run_folders import BadResults, paired, read, read_run

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


def checked(record: dict) -> str:
    """A line as the journal writes it."""
    text = json.dumps(record, ensure_ascii=False, sort_keys=True)
    check = hashlib.sha256(text.encode()).hexdigest()[:16]
    return json.dumps({**record, "check": check}, ensure_ascii=False, sort_keys=True) + "\n"


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
def test_a_line_that_was_altered_is_refused(tmp_path, made_run, name, place):
    folder = made_run(tmp_path, "rome", 1, {0: START, 5: WORSE, 10: WORSE})
    path = folder / name
    records = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else [edit(1, "a"), edit(2)]
    lines = [checked(record) for record in records]
    path.write_text("".join(lines), encoding="utf-8")
    assert read([folder])
    lines[place - 1] = lines[place - 1].replace('"n_edits": ', '"n_edits": 1')
    path.write_text("".join(lines), encoding="utf-8")
    with pytest.raises(BadResults, match=f"{name}:{place} is damaged: .* matches its checksum"):
        read([folder])


def test_every_edit_is_in_a_table_with_its_diagnostics_success_and_seconds(tmp_path, made_run):
    folder = made_run(tmp_path, "rome", 3, {0: START, 5: WORSE})
    records = [edit(2, "a", "b", immediate=(1.0, 0.0), nll_after=0.25), edit(3, "c", immediate=(1.0,), steps=7)]
    (folder / "edits.jsonl").write_text("".join(map(checked, records)), encoding="utf-8")
    (x,) = comparisons(read([tmp_path]))
    first, second = edits_table(x.runs).to_dict("records")
    assert (first["method"], first["seed"], first["n_edits"], first["n_new"]) == ("rome", 3, 2, 2)
    assert first["ids"] == "a; b" and first["target_news"] == "Rome; Rome" and first["edit_s"] == 2.5
    assert first["diagnostics/nll_after"] == 0.25 and math.isnan(first["diagnostics/steps"])
    assert first["immediate/prob/efficacy"] == 0.5 and second["immediate/prob/efficacy"] == 1.0
    assert (second["n_edits"], second["n_new"], second["diagnostics/steps"]) == (3, 1, 7.0)


def test_every_key_of_the_main_config_is_known_to_tell_methods_apart_or_not():
    """A key that is new in conf/run.yaml must be put into one of the two lists."""
    of_a_method = {"method", "constraint", "edits", "batch_size", "dtype"}
    main = yaml.safe_load((Path(__file__).resolve().parents[3] / "conf" / "run.yaml").read_text(encoding="utf-8"))
    groups = {name for default in main.pop("defaults") if isinstance(default, dict) for name in default}
    keys = (set(main) | groups) - {"hydra", "override hydra/job_logging", "experiment"}  # no keys of a resolved config
    assert keys == of_a_method | set(NOT_OF_A_METHOD) and not of_a_method & set(NOT_OF_A_METHOD)


def test_what_no_weight_depends_on_splits_no_method_and_another_order_of_edits_does(tmp_path, made_run):
    for seed, config in enumerate([{"evaluate": {"cache_gib": 2.0}}, {"evaluate": {"cache_gib": 0}},
                                   {"edits": {"name": "facts", "order": "shuffled"}}]):  # fmt: skip
        made_run(tmp_path, "rome", seed, {0: START}, config={"edits": {"name": "facts", "order": "file"}, **config})
    (x,) = comparisons(read([tmp_path]))
    seeds = {label: [run.seed for run in runs] for label, runs in x.runs.items()}
    assert seeds == {"rome (order=file)": [0, 1], "rome (order=shuffled)": [2]}


def test_each_run_is_compared_with_its_own_unedited_model(tmp_path, made_run):
    """Another machine's unedited model may score otherwise: 0.8 → 0.6 and 1 → 0.8 are −0.2 each, 1/3 and 3/5 left."""
    made_run(tmp_path, "rome", 1, {0: START, 5: WORSE})
    made_run(tmp_path, "rome", 2, {0: {**START, "nli": [1] * 5}, 5: START})
    (x,) = comparisons(read([tmp_path]))
    left = [x.share("nli")(run, run.row(5)) for run in x.runs["rome"]]
    assert left == pytest.approx([1 / 3, 3 / 5]) and x.base("nli") == pytest.approx(0.9)
    point = x.curves.query("n_edits == 5 and curve == 'retained'").iloc[0]
    assert point["value"] == pytest.approx(sum(left) / 2) and point["low"] < sum(left) / 2 < point["high"]


def test_the_title_does_not_say_where_the_rows_lie(tmp_path, made_run):
    made_run(tmp_path, "rome", 1, {0: START}, config={"data": "/home/somebody/rows"})
    (x,) = comparisons(read([tmp_path]))
    assert "data rows" in x.title and "somebody" not in x.title


def test_the_caption_says_model_edits_rows_and_seeds(tmp_path, made_run):
    for seed in (1, 2):
        made_run(tmp_path, "rome", seed, {0: START, 5: WORSE}, config={"edits": {"name": "zsre", "order": "file"}})
    (x,) = comparisons(read([tmp_path]))
    assert (
        x.caption == "tiny · edits: zsre in file order · setting: sequential · 5 embedded rows per ability · seeds 1, 2"
    )


def test_methods_are_told_apart_by_what_differs_and_not_by_seed(tmp_path, made_run):
    target = "afteredit.edit.methods.rome.Rome"
    for seed, layer in ((1, 8), (2, 8), (3, 9)):
        made_run(tmp_path, "rome", seed, {0: START}, config={"method": {"_target_": target, "layer": layer}})
    rect = {"_target_": "afteredit.edit.constraints.rect.Rect", "keep": 0.4}
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
