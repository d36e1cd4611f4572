"""The page with its pictures and tables, and the command line."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from matplotlib import image
from matplotlib import pyplot as plt

from afteredit.analysis import report
from afteredit.analysis.__main__ import main

PICTURES = ("first-look", "retained", "abilities", "editing", "trade-off", "heat-map", "drift")
TABLES = ("metrics", "curves", "edits", "summaries", "drops", "warnings")
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


def test_the_page_needs_no_network_and_everything_lies_beside_it(three_runs, tmp_path, capsys):
    out, open_before = tmp_path / "out", plt.get_fignums()
    assert main(["report", str(three_runs), "--out", str(out)]) == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    anchors, sources = ([s for s in Sources(page).found if s.startswith("#") == inside] for inside in (True, False))
    assert len(sources) == len(PICTURES) and all(s.startswith("data:image/svg+xml;base64,") for s in sources)
    assert len(anchors) == page.count("<h3>") and all(f' id="{anchor[1:]}"' in page for anchor in anchors)
    assert not re.search(r"https?://|@import|url\(", page)
    assert (out / "report.html").stat().st_size < 4_000_000
    for name in PICTURES:
        height, width, _ = image.imread(out / f"{name}.png").shape
        assert width >= 1000 and height >= 300  # drawn as asked; what is in them the tests below say
        assert (out / f"{name}.svg").read_bytes().startswith(b"<?xml")
    for name in TABLES:
        assert len(pd.read_parquet(out / f"{name}.parquet")) == len(pd.read_csv(out / f"{name}.csv")) > 0
    assert len(pd.read_csv(out / "samples.csv.gz")) == len(pd.read_parquet(out / "samples.parquet")) == 3 * 3 * 20
    assert "Inference" in page and "Reasoning (not measurable)" in page and "&gt; 10" in page
    assert str(out / "report.html") in capsys.readouterr().out and plt.get_fignums() == open_before


def test_the_same_runs_give_the_same_files(three_runs, tmp_path, only_parts):
    only_parts("retained", "drops", "warnings")
    for name in ("a", "b"):
        assert main(["report", str(three_runs), "--out", str(tmp_path / name)]) == 0
    paths = [path for path in (tmp_path / "a").iterdir() if path.suffix in (".html", ".svg", ".csv")]
    assert len(paths) == 2 + len(TABLES)
    for path in paths:
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_two_evaluations_are_two_sections_with_their_own_files(tmp_path, made_run, only_parts):
    made_run(tmp_path / "runs", "rome", 1, {0: START, 5: WORSE})
    made_run(tmp_path / "runs", "rome", 1, {0: START, 20: WORSE}, digest="bbbbbbbb")
    only_parts("methods", "drops")
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


def test_names_cannot_write_into_the_page(tmp_path, made_run, only_parts):
    tasks = {"nli": {"title": "<script>alert(1)</script>", "chance": 0.5}}
    made_run(tmp_path / "runs", "rome", 1, {n: {"nli": [1.0] * 9 + [0.0]} for n in (0, 5)}, tasks=tasks)
    only_parts("methods", "drops")
    assert main(["report", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert page.count("<script") == 3 and "<script>alert" not in page  # data, library, and what draws


def test_every_picture_says_what_was_measured(x):
    figures = {name: figure for part in report.parts(x, []) for name, figure in part.figures.items()}
    assert set(figures) == set(PICTURES)
    for name, figure in figures.items():
        assert figure.get_supxlabel().startswith(
            "tiny · edits: facts · setting: sequential · 10 embedded rows per ability · seeds 1, 2, 3"
        ), name


NEW_CHART = '''
"""Draws how many edits each method has made."""
from matplotlib import pyplot as plt
from afteredit.analysis.report_part import Part

PLACE = 25


def part(comparison, checkpoints):
    figure, axis = plt.subplots()
    axis.barh(list(comparison.runs), [runs[0].n_edits for runs in comparison.runs.values()])
    return Part("Edits made", "Longer bars: more edits.", {"edits-made": figure})
'''


@pytest.fixture(scope="module")
def with_new_chart(tmp_path_factory, made_run) -> tuple[Path, str]:
    """A report by a copy of the wing that has one more file; with the names of the modules that its process loaded."""
    folder, root = tmp_path_factory.mktemp("new-chart"), Path(report.__file__).parents[1]
    copy = folder / "import" / "afteredit"
    copy.mkdir(parents=True)
    for wing in ("edit", "evaluate", "model", "record", "store"):
        (copy / wing).symlink_to(root / wing)
    shutil.copytree(root / "analysis", copy / "analysis", ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "analysis" / "pictures" / "report_charts" / "edits_made.py").write_text(NEW_CHART)
    made_run(folder / "runs", "rome", 1, {0: START})
    code = ("import sys; from afteredit.analysis.__main__ import main; main(sys.argv[1:]); "
            "from afteredit.analysis.read import wandb_runs; from afteredit.analysis.tables import run_end; "
            "print(*sys.modules)")  # fmt: skip
    command = [sys.executable, "-c", code, "report", str(folder / "runs"), "--out", str(folder / "out")]
    done = subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(copy.parent)}, cwd=folder,
                          capture_output=True, text=True)  # fmt: skip
    return folder / "out", done.stdout


def test_a_new_chart_is_one_new_file(with_new_chart):
    out, _ = with_new_chart
    page = (out / "report.html").read_text(encoding="utf-8")
    titles = re.findall("<h3>(.*?)</h3>", page)
    assert titles.index("Edits made") == titles.index("Ability retained, and perplexity") + 1
    assert (out / "edits-made.svg").exists() and "Longer bars: more edits." in page


def test_the_report_brings_neither_torch_nor_hydra(with_new_chart):
    modules = set(with_new_chart[1].split())
    assert "afteredit.analysis.report" in modules
    assert not modules & {"torch", "transformers", "lm_eval", "hydra", "omegaconf"}


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
def test_what_cannot_be_reported_is_said_in_one_line_with_exit_code_2(three_runs, tmp_path, capsys, argv, said):
    out = [] if "--out" in argv else ["--out", str(tmp_path / "out")]
    assert main(["report", *(text.format(runs=three_runs) for text in argv), *out]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
