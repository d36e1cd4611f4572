"""Every point of the kept study is the mean of the stored rows that points.csv names for it."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from afteredit.analysis.read.run_folders import read
from afteredit.analysis.study import changes
from afteredit.analysis.study.points import points
from afteredit.tests.house.source import ROOT

STUDY = ROOT / "docs" / "results" / "study"


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> pd.DataFrame:
    """points.csv of the kept runs, read back; its intervals, which take most of the time, are left out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(changes, "change_interval", lambda before, after: changes.UNKNOWN)
        patch.setattr(changes, "bootstrap", lambda sizes, statistic: changes.UNKNOWN)
        table = points(read([STUDY]))
    file = tmp_path_factory.mktemp("study") / "points.csv"
    table.to_csv(file, index=False)
    return pd.read_csv(file, dtype={"n_edits": str})


def test_every_value_is_the_mean_of_the_rows_that_it_names(written):
    stored: dict[tuple[str, int], dict] = {}
    for path in STUDY.rglob("results-*.jsonl"):
        for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            stored[f"{path.parent.name}/{path.name}", row["n_edits"]] = row
    assert len(written) > 600
    for point in written.to_dict("records"):
        files, rows = point["results"].split(), point["n_edits"].split()
        assert [file.partition("/")[0] for file in files] == point["runs"].split() and len(files) == point["n_runs"]
        for column, key in (("value", point["key"]), ("unparseable", f"{point['key']}/unparseable")):
            means = []
            for file, names in zip(files, rows, strict=True):
                values = [stored[file, int(n)].get(key, float("nan")) for n in names.split(",")]
                means.append(sum(values) / len(values))
            assert point[column] == pytest.approx(sum(means) / len(means), nan_ok=True), point


def test_x_counts_rounds_in_batch_sequential_and_edits_elsewhere(written):
    for point in written[written["figure"] != "rect_editing"].to_dict("records"):
        facts = point["x"] * (point["batch_size"] if point["figure"] == "batch_sequential" else 1)
        assert set(point["n_edits"].split()) == {str(facts)}
