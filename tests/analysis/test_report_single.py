"""The report of runs with setting=single, worked out by hand; nothing there is an area or a number of edits until."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from matplotlib import image
from matplotlib import pyplot as plt

from afteredit.analysis.__main__ import main
from afteredit.analysis.numbers.comparison import comparisons
from afteredit.analysis.numbers.drift import drift_points
from afteredit.analysis.numbers.drops import drops
from afteredit.analysis.numbers.flat_tables import metrics_table, samples_table
from afteredit.analysis.pictures.report_charts import retained
from afteredit.analysis.read.run_folders import read
from afteredit.analysis.tables.report_tables import warnings
from afteredit.analysis.tables.report_tables.drops import abilities_table
from afteredit.analysis.tables.report_tables.methods import methods_table
from afteredit.tests.analysis.conftest import checked

OVER_EDITS = ("area", "until", "collapse at")  # headings that say nothing of models that do not build on each other


def right(n: int) -> dict:
    return {"nli": [1.0] * n + [0.0] * (20 - n), "reasoning": [0.0] * 20}


@pytest.fixture
def runs(tmp_path, made_run):
    """Batches of 2, nli 0.9 unedited: seed 1 has models at 0.8, 0.5 and 0.8 (75, 0, 75 % left), seed 2 one at 0.8."""
    single = {"setting": "single", "batch_size": 2}
    made = made_run(tmp_path / "runs", "memit", 1, {0: right(18), 2: right(16), 4: right(10), 6: right(16)},
                    config=single, perplexity={0: 20.0, 2: 30.0, 4: 9000.0, 6: 25.0})  # fmt: skip
    broken = [
        {"n_edits": n, "requests": [{"id": "a"}, {"id": "b"}], "diagnostics": {"collapsed": 1.0} if n == 6 else {}}
        for n in (2, 4, 6)
    ]
    (made / "edits.jsonl").write_text("".join(map(checked, broken)), encoding="utf-8")
    path = made / "results-aaaaaaaa.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row, efficacy in zip(rows[1:], (1.0, 0.5, 0.0), strict=True):
        row |= {"editing/immediate/generated/efficacy": efficacy, "editing/immediate/n_edits": 2}
    path.write_text("".join(map(checked, rows)), encoding="utf-8")
    made_run(tmp_path / "runs", "memit", 2, {0: right(18), 2: right(16)}, config={**single, "seed": 2})
    return tmp_path / "runs"


@pytest.fixture
def x(runs):
    (only,) = comparisons(read([runs]))
    yield only
    plt.close("all")


def test_a_single_runs_collapse_condemns_no_other_model(runs):
    first, second = sorted(read([runs]), key=lambda run: run.seed)
    assert first.collapsed_at is None and first.n_collapsed == 2  # one by perplexity, one by NaN
    assert second.collapsed_at is None and second.n_collapsed == 0


def test_the_reports_tables_are_means_over_models_and_say_how_many(x):
    (row,) = methods_table(x).to_dict("records")
    assert not [name for name in row if any(word in name for word in OVER_EDITS)]
    assert (row["runs"], row["edits in each model"], row["models"]) == ("2", "2", "3 · 1")
    assert row["ability retained, mean over models (%)"] == "62.5 (50.0–75.0)"
    assert row["of the worst model (%)"] == "37.5 (0.0–75.0)"
    assert row["models collapsed"] == "2 of 3 · 0 of 1" and row["edits successful, generated (%)"] == "50.0"
    numbers = drops(x)
    nli = numbers.set_index("ability").loc["nli"]
    assert not set(numbers) & {"area", "edits_until_10_percent_lost"}
    assert (nli["n_edits"], nli["models"], nli["lowest"], nli["highest"]) == (2, 4, 0.5, 0.8)
    assert nli["after"] == pytest.approx(((0.8 + 0.5 + 0.8) / 3 + 0.8) / 2) and nli["low"] < -0.15 < nli["high"]
    assert nli["n_examples"] == 20 and nli["p"] < 0.05
    text = abilities_table(x, numbers).set_index("ability").loc["Inference"]
    assert text["lowest–highest model (%)"] == "50.0–80.0" and not [name for name in text.index if "until" in name]
    assert warnings.part(x, []) is None
    of = x.summaries.set_index(["ability", "seed"]).loc[("nli", 1)]
    assert (of["models"], of["collapsed"], of["left"]) == (3, 2, pytest.approx(0.5))
    assert "area" not in x.summaries and "collapsed_at" not in x.summaries


def test_the_reports_pictures_show_a_models_own_edits_on_the_axis_and_every_model_in_the_map(x):
    assert sorted(set(x.curves["n_edits"])) == [0, 2]
    assert x.curves.query("n_edits == 2 and curve == 'retained'")["value"].item() == pytest.approx(0.625)
    figure = retained.part(x, []).figures["retained"]
    assert list(figure.axes[0].get_xticks()) == [0, 2]
    assert not [line for axis in figure.axes for line in axis.lines if line.get_marker() == "X"]  # collapse
    assert "setting: single, mean over 1–3 models" in figure.get_supxlabel()
    assert sorted(map(len, drift_points(x.runs["memit"], "perplexity"))) == [1, 3]


def test_what_lies_beside_the_page_keeps_every_model(x, runs, tmp_path, only_parts):
    metrics = metrics_table(x.runs)
    assert sorted(metrics[metrics["metric"] == "ability/nli"]["n_edits"]) == [0, 0, 2, 2, 4, 6]
    assert len(samples_table(x.runs)) == 6 * 40
    only_parts("retained", "methods", "drops", "warnings")
    assert main(["report", str(runs), "--out", str(tmp_path / "out")]) == 0
    assert image.imread(tmp_path / "out" / "retained.png").shape[1] >= 1000
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "2 of 3 · 0 of 1" in page and "each of them the mean over its models" in page
    assert not [word for word in ("area", "until", "in time", "last checkpoint") if word in page]
    assert not (tmp_path / "out" / "warnings.csv").exists()
    for name in ("summaries", "drops", "curves"):
        assert not [column for column in pd.read_csv(tmp_path / "out" / f"{name}.csv") if "area" in column]


def test_a_run_that_has_not_measured_an_edited_model_yet_is_read(tmp_path, made_run):
    made_run(tmp_path, "rome", 1, {0: right(18)}, config={"setting": "single", "batch_size": 1})
    (x,) = comparisons(read([tmp_path]))
    assert drops(x).empty and methods_table(x)["models"].item() == "0"
