"""Means over the models of a run with setting=single, worked out by hand; nothing there is an area or a time."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pandas as pd
import pytest
from matplotlib import image
from matplotlib import pyplot as plt
from rich.console import Console

from afteredit.analysis import report
from afteredit.analysis.__main__ import main
from afteredit.analysis.numbers.comparison import comparisons
from afteredit.analysis.numbers.flat_tables import metrics_table, samples_table
from afteredit.analysis.numbers.single_edits import (
    each_edit_once,
    mean_row,
    models_editing_table,
    models_table,
    summarise_models,
)
from afteredit.analysis.pictures.heat_and_drift import drift_points
from afteredit.analysis.pictures.report_curves import overview
from afteredit.analysis.read.run_folders import read
from afteredit.analysis.tables import run_end as end
from afteredit.analysis.tables.report_tables import abilities_table, drops, methods_table, warnings_table
from afteredit.analysis.tables.run_end import at_end

CHANCE = {"nli": 0.5, "ner": 0.0}
EFFICACY = "editing/immediate/prob/efficacy"
OVER_EDITS = ("area", "until", "collapse at")  # what says nothing of models that do not build on each other


def covering(n_edits: int, n: int, efficacy: float) -> dict:
    return {"n_edits": n_edits, "editing/immediate/n_edits": n, EFFICACY: efficacy}


def model(n_edits: int, nli: float, perplexity: float, retained: float, **more: float) -> dict:
    return {
        "n_edits": n_edits,
        "ability/nli": nli,
        "ability/retained": retained,
        "drift/perplexity": perplexity,
        **more,
    }


def test_of_every_metric_the_mean_is_over_the_models_that_have_it():
    mean = mean_row([model(5, 0.6, 30.0, 0.25), {**model(10, 0.8, 20.0, 0.75), "ability/ner": 0.5}], n_edits=1)
    assert mean == {"n_edits": 1, "ability/nli": pytest.approx(0.7), "ability/retained": 0.5, "ability/ner": 0.5,
                    "drift/perplexity": 25.0}  # fmt: skip


def test_immediate_success_is_the_mean_over_all_edits_and_not_over_rows():
    mean = mean_row([covering(4, 4, 1.0), covering(8, 4, 0.5), covering(10, 2, 0.0)], n_edits=1)
    assert mean[EFFICACY] == pytest.approx((4 + 2 + 0) / 10) and mean["editing/immediate/n_edits"] == 10


def test_where_rows_overlap_each_edit_counts_once():
    """Measured every 2 edits, then every 3: the row at 6 speaks of edits 4 to 6; that at 5 was measured later."""
    models = [covering(2, 2, 0.0), covering(3, 3, 1.0), covering(4, 1, 0.0), covering(5, 2, 0.0), covering(6, 3, 0.5)]
    assert [row["n_edits"] for row in each_edit_once(models)] == [6, 3]
    assert mean_row(models, 1)[EFFICACY] == pytest.approx(0.75)


def test_the_summary_holds_means_and_spread_and_nothing_over_edits():
    models = [model(5, 0.6, 30.0, 0.25, **{EFFICACY: 1.0, "editing/immediate/n_edits": 5}),
              model(10, 0.8, math.nan, 0.75, **{EFFICACY: 0.5, "editing/immediate/n_edits": 5})]  # fmt: skip
    summary = summarise_models(models, collapsed=[3, 10])
    assert math.isnan(summary.pop("summary/drift/perplexity_mean"))
    assert math.isnan(summary.pop("summary/drift/perplexity_min"))
    assert math.isnan(summary.pop("summary/drift/perplexity_max"))
    assert summary == {
        "summary/models": 2, "summary/collapsed_models": 1,
        "summary/ability/nli_mean": pytest.approx(0.7), "summary/ability/nli_min": 0.6, "summary/ability/nli_max": 0.8,
        "summary/ability/retained_mean": 0.5, "summary/ability/retained_min": 0.25,
        "summary/ability/retained_max": 0.75, f"summary/{EFFICACY}_mean": 0.75,
    }  # fmt: skip


@pytest.fixture
def results(tmp_path):
    """nli: 8 of 10 right before; 5 of the same, and 9 of 10, in two models of one edit each out of four."""
    rows = [{**model(0, 0.8, 20.0, 1.0), "ability/ner": 0.4, "measurable": ["nli"], "editing/retained/fluency": 5.5},
            {**model(2, 0.5, 900.0, 0.0), "ability/ner": 0.4, "editing/retained/prob/efficacy": 1.0,
             "editing/retained/fluency": 2.5, **covering(2, 2, 0.5)},
            {**model(4, 0.9, 22.0, 1.25), "ability/ner": 0.4, "editing/retained/prob/efficacy": 0.0,
             "editing/retained/fluency": 3.5, **covering(4, 2, 1.0)}]  # fmt: skip
    for row, right in zip(rows, (8, 5, 9), strict=True):
        nli = [{"name": "nli", "doc_id": i, "numerator": float(i < right), "denominator": 1.0} for i in range(10)]
        ner = [{"name": "ner", "doc_id": i, "numerator": float(i < 2), "denominator": 2.5} for i in range(5)]
        samples = [{"kind": "ability", **example} for example in nli + ner]
        pd.DataFrame([*samples, {"kind": "immediate", "request": "f1"}]).to_parquet(
            tmp_path / f"{row['n_edits']}.parquet"
        )
    return SimpleNamespace(rows=rows, samples_path=lambda n: tmp_path / f"{n}.parquet")


def printed(*tables, width: int = 140) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(*tables)
    return console.export_text()


def cells(text: str, begins: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if line.strip("│ ").startswith(begins))
    return [cell.strip() for cell in line.strip().strip("│").split("│")]


def test_the_end_table_gives_the_mean_over_models_beside_the_unedited_one_and_the_worst(results):
    text = printed(models_table(results, CHANCE, collapsed=[1, 2]))
    name, chance, start, mean, change, interval, worst = cells(text, "nli")
    assert (name, chance, start, mean, change, worst) == ("nli", "0.50", "0.800", "0.700", "-0.100", "0.500")
    low, high = (float(text) for text in interval.strip("[]").split(","))
    assert -0.3 <= low < -0.1 < high <= 0.1  # of examples that changed by -1/2 (three) or +1/2 (one)
    assert cells(text, "ner")[0] == "ner (not measurable)" and cells(text, "ner")[5] == "[+0.000, +0.000]"
    assert cells(text, "retained")[2:] == ["1.000", "0.625", "-0.375", "", "0.000"]
    assert cells(text, "perplexity")[2:] == ["20.000", "461.000", "+441.000", "", "900.000"]
    assert "mean over the 2 models measured" in text and "1 of 2 models collapsed; NaN in the update of 1" in text
    assert "collapsed" not in printed(models_table(results, CHANCE, collapsed=[]))


def test_the_editing_table_is_over_all_edits_and_over_all_models(results):
    text = printed(models_editing_table(results))
    assert cells(text, "immediate efficacy") == ["immediate efficacy", "0.750", "", ""]
    assert cells(text, "retained efficacy") == ["retained efficacy", "0.500", "", ""]
    assert cells(text, "retained fluency") == ["retained fluency (bits)", "", "", "3.000 (5.500)"]
    assert "immediate of 4 edits" in " ".join(text.split()) and "retained of 2 models" in " ".join(text.split())


def test_without_abilities_there_is_a_table_too(results):
    for path in map(results.samples_path, (0, 2, 4)):
        pd.DataFrame([{"kind": "immediate", "request": "f1"}]).to_parquet(path)
    assert cells(printed(models_table(results, {}, collapsed=[])), "perplexity")[3] == "461.000"


@pytest.mark.parametrize("table", [lambda results: models_table(results, CHANCE, [2]), models_editing_table])
def test_tables_can_be_read_on_a_terminal_of_80_columns(results, table):
    assert "…" not in printed(table(results), width=80)


def test_the_end_of_a_run_is_as_its_setting(results, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(end, "draw_curves", lambda rows, chance, path, title: drawn.append((rows, title)) or path)
    runs = tmp_path / "rome-tiny-1"
    picture, summary, tables = at_end(results, CHANCE, runs, single=1, collapsed=[2])
    assert picture == runs / "curves.png" and "mean over the 2 models" in printed(*tables)
    assert summary["summary/ability/nli_mean"] == pytest.approx(0.7) and summary["summary/collapsed_models"] == 1
    assert not [key for key in summary if "area" in key or "until" in key or key == "summary/collapse"]
    _, summary, tables = at_end(results, CHANCE, runs, single=None, collapsed=[2, 4])
    assert summary["summary/collapse"] == 2 and "summary/nli/area" in summary and "after 4 edits" in printed(*tables)
    assert not [key for key in summary if key.endswith("_mean")]
    (single, title), (sequential, _) = drawn
    assert [row["n_edits"] for row in single] == [0, 1] and title == "rome-tiny-1: mean over 2 models of 1 edit each"
    assert single[1]["ability/nli"] == pytest.approx(0.7) and sequential == results.rows


def right(n: int) -> dict:
    return {"nli": [1.0] * n + [0.0] * (20 - n), "reasoning": [0.0] * 20}


@pytest.fixture
def runs(tmp_path, made_run):
    """Batches of 2, nli 0.9 unedited: seed 1 has models at 0.8, 0.5 and 0.8 (75, 0, 75 % left), seed 2 one at 0.8."""
    single = {"setting": "single", "batch_size": 2}
    made = made_run(tmp_path / "runs", "memit", 1, {0: right(18), 2: right(16), 4: right(10), 6: right(16)},
                    config=single, perplexity={0: 20.0, 2: 30.0, 4: 9000.0, 6: 25.0})  # fmt: skip
    broken = [{"n_edits": n, "requests": [], "diagnostics": {"collapsed": 1.0} if n == 6 else {}} for n in (2, 4, 6)]
    (made / "edits.jsonl").write_text("".join(json.dumps(record) + "\n" for record in broken), encoding="utf-8")
    path = made / "results-aaaaaaaa.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row, efficacy in zip(rows[1:], (1.0, 0.5, 0.0), strict=True):
        row |= {"editing/immediate/generated/efficacy": efficacy, "editing/immediate/n_edits": 2}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
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
    assert warnings_table(x).empty
    of = x.summaries.set_index(["ability", "seed"]).loc[("nli", 1)]
    assert (of["models"], of["collapsed"], of["left"]) == (3, 2, pytest.approx(0.5))
    assert "area" not in x.summaries and "collapsed_at" not in x.summaries


def test_the_reports_pictures_show_a_models_own_edits_on_the_axis_and_every_model_in_the_map(x):
    assert sorted(set(x.curves["n_edits"])) == [0, 2]
    assert x.curves.query("n_edits == 2 and curve == 'retained'")["value"].item() == pytest.approx(0.625)
    figure = overview(x)["retained"]
    assert list(figure.axes[0].get_xticks()) == [0, 2]
    assert not [line for axis in figure.axes for line in axis.lines if line.get_marker() == "X"]  # collapse
    assert "setting: single, mean over 1–3 models" in figure.get_supxlabel()
    assert sorted(map(len, drift_points(x.runs["memit"], "perplexity"))) == [1, 3]


def test_what_lies_beside_the_page_keeps_every_model(x, runs, tmp_path, monkeypatch):
    metrics = metrics_table(x.runs)
    assert sorted(metrics[metrics["metric"] == "ability/nli"]["n_edits"]) == [0, 0, 2, 2, 4, 6]
    assert len(samples_table(x.runs)) == 6 * 40
    monkeypatch.setattr(report, "figures", lambda x, at: overview(x).items())
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
