"""What a run leaves at its end, read from its folder."""

from __future__ import annotations

import pytest
from rich.console import Console

from afteredit.analysis.tables import run_end as module
from afteredit.analysis.tables.run_end import run_end
from afteredit.tests.analysis.conftest import checked


def right(n: int) -> dict:
    return {"nli": [1.0] * n + [0.0] * (10 - n)}


@pytest.fixture
def drawn(monkeypatch) -> list:
    calls: list = []
    monkeypatch.setattr(module, "draw_curves", lambda rows, chance, path, title: calls.append((rows, title)) or path)
    return calls


def texts(tables) -> str:
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(*tables)
    return console.export_text()


def test_a_sequential_run_gives_areas_and_its_first_collapse_up_to_the_edits_asked_for(tmp_path, made_run, drawn):
    folder = made_run(tmp_path, "rome", 1, {0: right(9), 2: right(7), 4: right(6), 6: right(5)})
    edits = [
        {"n_edits": n, "requests": [{}], "diagnostics": {"collapsed": 1.0} if n in (4, 6) else {}} for n in range(1, 7)
    ]
    (folder / "edits.jsonl").write_text("".join(map(checked, edits)), encoding="utf-8")
    end = run_end(folder, "aaaaaaaa", 4)
    assert end.picture == folder / "curves.png" and "after 4 edits" in texts(end.tables)
    assert end.summary["summary/nli/left"] == pytest.approx((0.6 - 0.5) / (0.9 - 0.5))
    assert end.summary["summary/collapse_condition"].startswith("an update held NaN")
    assert end.summary["summary/collapse"] == 4 and "summary/collapse" not in run_end(folder, "aaaaaaaa", 2).summary
    assert not [key for key in end.summary if key.endswith("_mean")]
    rows, title = drawn[0]
    assert [row["n_edits"] for row in rows] == [0, 2, 4] and title == folder.name


def test_the_picture_of_a_run_says_what_the_weights_were_before_they_were_dequantised(tmp_path, made_run, drawn):
    environment = {"evaluations": {}, "weights": "Q4_K, dequantised"}
    folder = made_run(tmp_path, "rome", 1, {0: right(9), 2: right(7)}, environment=environment)
    run_end(folder, "aaaaaaaa", 2)
    assert drawn[0][1] == f"{folder.name}\nweights: Q4_K, dequantised"


def test_a_single_run_gives_means_over_models_and_no_areas(tmp_path, made_run, drawn):
    config = {"setting": "single", "batch_size": 2}
    folder = made_run(tmp_path, "rome", 1, {0: right(9), 2: right(5), 4: right(7)}, config=config,
                      perplexity={2: 9000.0, 4: 21.0})  # fmt: skip
    end = run_end(folder, "aaaaaaaa", 4)
    assert "mean over the 2 models" in texts(end.tables)
    assert (
        end.summary["summary/ability/nli_mean"] == pytest.approx(0.6) and end.summary["summary/collapsed_models"] == 1
    )
    assert not [key for key in end.summary if "area" in key or "until" in key or key == "summary/collapse"]
    ((rows, title),) = drawn
    assert [row["n_edits"] for row in rows] == [0, 2] and rows[1]["ability/nli"] == pytest.approx(0.6)
    assert title == f"{folder.name}: mean over 2 models of 2 edits each"


def test_the_results_of_another_evaluation_are_not_read(tmp_path, made_run, drawn):
    made_run(tmp_path, "rome", 1, {0: right(9), 2: right(5)})
    folder = made_run(tmp_path, "rome", 1, {0: right(9), 2: right(7)}, digest="bbbbbbbb")
    assert run_end(folder, "bbbbbbbb", 2).summary["summary/nli/left"] == pytest.approx(0.5)
