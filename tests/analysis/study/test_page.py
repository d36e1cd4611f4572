"""Tests the page of the study that the command writes, with its pictures and numbers."""

from __future__ import annotations

import re

import pandas as pd
import pytest
from matplotlib import pyplot as plt

from afteredit.analysis.__main__ import main
from afteredit.analysis.study import page
from afteredit.tests.analysis.conftest import write_run
from afteredit.tests.analysis.study.study_runs import only, right, rome


def study(tmp_path) -> str:
    assert main(["study", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    return (tmp_path / "out" / "study.md").read_text(encoding="utf-8")


def test_the_command_writes_page_pictures_and_numbers(tmp_path, capsys):
    rome(tmp_path / "runs", environment={"evaluations": {}, "weights": "Q4_K, dequantised"})
    text = study(tmp_path)
    assert str(tmp_path / "out" / "study.md") in capsys.readouterr().out.replace("\n", "")
    picture = "tiny-sequential-rome.png"
    assert f"({picture})" in text and (tmp_path / "out" / picture).stat().st_size > 20_000
    assert "\n## tiny (Q4_K, dequantised)\n" in text and "kn: **not run**" in text
    assert "\nNot run (paper): rome_published at 2, 4, 6, 8, 10, 15; rome_published at 5, 20 (closed_qa, " in text
    numbers = pd.read_csv(tmp_path / "out" / "points.csv")
    point = only(numbers, figure="sequential", quantity="sentiment", scoring="paper", x=20)
    assert point["value"] == pytest.approx(0.1) and point["unparseable"] == 0.25


def test_a_picture_says_what_the_page_says_is_not_run(tmp_path, monkeypatch):
    rome(tmp_path / "runs")
    drawn = []
    monkeypatch.setattr(page, "as_png", lambda picture, dpi: drawn.append(picture) or b"")
    lines = study(tmp_path).splitlines()
    titles = [" ".join(picture.legends[0].get_title().get_text().split()) for picture in drawn]
    plt.close("all")
    said = [f"N{line.strip()}." for title in titles for line in re.split("n(?=ot run)", title) if line]
    assert len(titles) == 2 and len(said) == 3  # the sequential figure lacks other points in each scoring
    assert set(said) <= set(lines)


def test_a_verdict_says_how_many_answers_were_unreadable_and_of_several_orders_the_range(tmp_path):
    rome(tmp_path / "runs", order="file")
    head = "| panel | curve | scoring | beside | x | published change | change here, 95 % |"
    row = "| sentiment | rome_published | paper | gpt2-xl | 20 | −0.55 | −0.50 [−0.65, −0.35] |"
    text = study(tmp_path)
    assert f"{head} unparseable | distance | verdict |\n|---|---|---|---|---|---|---|---|---|---|\n" in text
    assert f"{row} 0.25 → 0.25 | +0.05 | seen: same direction |" in text
    rome(tmp_path / "runs", seed=1, last=0.5, order="shuffled")
    text = study(tmp_path)
    assert f"{head} over orders | unparseable | distance | verdict |" in text
    assert f"{row} 2: −0.50 to −0.10 | 0.25 → 0.25 | +0.05 | seen: same direction |" in text


def test_runs_that_belong_to_no_figure_are_refused_with_what_would(tmp_path, capsys):
    write_run(tmp_path / "runs", "rome", 0, {0: {"nli": right(0.75)}}, config={"constraint": {
        "_target_": "afteredit.edit.constraints.norm_cap.NormCap", "growth": 0.1}})  # fmt: skip
    assert main(["study", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 2
    assert "experiment=gu2024/sequential_rome" in capsys.readouterr().err.replace("\n", " ")
