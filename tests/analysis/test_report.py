"""The page, its pictures and tables; and the command line."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pandas as pd
import pytest
from matplotlib import image
from matplotlib import pyplot as plt

from afteredit.analysis import report
from afteredit.analysis.__main__ import main
from afteredit.analysis.comparison import comparisons
from afteredit.analysis.plots import TOGETHER, abilities, overview
from afteredit.analysis.style import styles
from afteredit.analysis.tidy import read

PICTURES = ("retained", "abilities", "editing", "trade-off", "heat-map", "drift")
TABLES = ("metrics", "curves", "summaries", "drops", "warnings")
START = {"nli": [1.0] * 9 + [0.0], "reasoning": [0.0] * 10}
WORSE = {"nli": [1.0] * 7 + [0.0] * 3, "reasoning": [0.0] * 10}


class Sources(HTMLParser):
    """What a page asks a browser to load."""

    def __init__(self, page: str):
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found += [value for key, value in attrs if key in ("src", "href", "srcset", "data")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, made_run):
    folder = tmp_path_factory.mktemp("report") / "runs"
    for method, seed in (("rome", 1), ("rome", 2), ("memit", 3)):
        made_run(folder, method, seed, {0: START, 5: WORSE, 10: START if seed == 3 else WORSE})
    return folder


@pytest.fixture
def no_pictures(monkeypatch):
    monkeypatch.setattr(report, "figures", lambda x, at: iter(()))


def test_the_page_needs_no_network_and_everything_lies_beside_it(runs, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["report", str(runs), "--out", str(out)]) == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    sources = Sources(page).found
    assert len(sources) == len(PICTURES) and all(s.startswith("data:image/svg+xml;base64,") for s in sources)
    assert not re.search(r"https?://|@import|url\(", page)
    assert (out / "report.html").stat().st_size < 2_000_000
    for name in PICTURES:
        height, width, _ = image.imread(out / f"{name}.png").shape
        assert width >= 1000 and height >= 300 and (out / f"{name}.svg").read_bytes().startswith(b"<?xml")
    for name in TABLES:
        assert len(pd.read_parquet(out / f"{name}.parquet")) == len(pd.read_csv(out / f"{name}.csv")) > 0
    assert len(pd.read_csv(out / "samples.csv.gz")) == len(pd.read_parquet(out / "samples.parquet")) == 3 * 3 * 20
    assert "Inference" in page and "Reasoning (not measurable)" in page and "&gt; 10" in page
    assert str(out / "report.html") in capsys.readouterr().out and not plt.get_fignums()


def test_the_same_runs_give_the_same_files(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "figures", lambda x, at: overview(x).items())
    for name in ("a", "b"):
        assert main(["report", str(runs), "--out", str(tmp_path / name)]) == 0
    paths = [path for path in (tmp_path / "a").iterdir() if path.suffix in (".html", ".svg", ".csv")]
    assert len(paths) == 2 + len(TABLES)
    for path in paths:
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_two_evaluations_are_two_sections_with_their_own_files(tmp_path, made_run, no_pictures):
    made_run(tmp_path / "runs", "rome", 1, {0: START, 5: WORSE})
    made_run(tmp_path / "runs", "rome", 1, {0: START, 20: WORSE}, digest="bbbbbbbb")
    assert main(["report", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "report.html").read_text(encoding="utf-8").count("<h2>") == 2
    for folder, n_edits in (("1-aaaaaaaa", 5), ("2-bbbbbbbb", 20)):
        assert set(pd.read_csv(tmp_path / "out" / folder / "drops.csv")["n_edits"]) == {n_edits}


def test_runs_without_abilities_or_without_edits_are_shown_as_far_as_they_go(tmp_path, made_run):
    made_run(tmp_path / "a", "rome", 1, {0: {}, 5: {}}, measurable=[])
    made_run(tmp_path / "b", "rome", 2, {0: START})
    for name in ("a", "b"):
        assert main(["report", str(tmp_path / name), "--out", str(tmp_path / f"out-{name}")]) == 0
        assert (tmp_path / f"out-{name}" / "retained.png").exists()
        assert not (tmp_path / f"out-{name}" / "drift.png").exists()


def test_names_cannot_write_into_the_page(tmp_path, made_run, no_pictures):
    tasks = {"nli": {"title": "<script>alert(1)</script>", "chance": 0.5}}
    made_run(tmp_path / "runs", "rome", 1, {n: {"nli": [1.0] * 9 + [0.0]} for n in (0, 5)}, tasks=tasks)
    assert main(["report", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    assert "<script" not in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_a_band_for_each_method_a_thin_line_for_each_seed_and_the_chance(runs):
    (x,) = comparisons(read([runs]))
    axis = overview(x)["retained"].axes[0]
    assert len(axis.collections) == 2  # bands: one per method, none over seeds
    assert sorted(line.get_linewidth() for line in axis.lines) == [0.7, 0.7, 1, 1, 1.9, 1.9]
    left = abilities(x)["abilities"].axes[0]
    dotted = [line for line in left.lines if line.get_linestyle() == ":"]
    assert dotted[0].get_ydata()[0] == pytest.approx(100 * (0.5 - 0.9))
    unmeasurable = abilities(x)["abilities"].axes[2]
    assert "not measurable" in unmeasurable.get_title(loc="left") and unmeasurable.get_facecolor() != (1, 1, 1, 1)
    plt.close("all")


def test_many_methods_are_shown_few_at_a_time_and_each_once(tmp_path, made_run):
    methods = [f"m{i}" for i in range(TOGETHER + 1)]
    for seed, method in enumerate(methods):
        made_run(tmp_path, method, seed, {0: START, 5: WORSE})
    (x,) = comparisons(read([tmp_path]))
    figures = abilities(x)
    shown = [text.get_text() for figure in figures.values() for text in figure.legends[0].get_texts()]
    assert sorted(text for text in shown if text in methods) == methods and len(figures) == 2
    assert shown.count("other methods") == 2
    plt.close("all")


def test_thirty_two_methods_can_be_told_apart_without_colour():
    looks = styles([str(i) for i in range(32)]).values()
    assert len({(look["marker"], look["linestyle"]) for look in looks}) == 32


def test_collapse_is_marked(tmp_path, made_run):
    made_run(tmp_path, "rome", 1, {0: START, 5: WORSE}, perplexity={5: 1e300})
    (x,) = comparisons(read([tmp_path]))
    figure = overview(x)["retained"]
    assert [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_marker() == "X"] == [5]
    assert figure.axes[1].get_ylim()[1] < 1e6  # 1e300 does not set the scale
    plt.close("all")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "nothing given; allowed: either run directories"),
        (["{runs}", "--wandb", "a/b"], "runs and wandb given"),
        (["{runs}/absent"], "is no folder"),
        (["{runs}", "--at", "7"], "--at 7: nothing was measured there; allowed: 5, 10"),
        (["{runs}", "--out", "{runs}/rome-tiny-00000001/config.yaml"], "the folder cannot be made"),
        (["--wandb", "project"], "--wandb project: it must be ENTITY/PROJECT"),
    ],
)
def test_what_cannot_be_reported_is_said_in_one_line_with_exit_code_2(runs, tmp_path, capsys, argv, said):
    out = [] if "--out" in argv else ["--out", str(tmp_path / "out")]
    assert main(["report", *(text.format(runs=runs) for text in argv), *out]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
