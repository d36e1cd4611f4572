"""Tests where methods break: which runs make a line, what is counted, and what is drawn."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import yaml
from matplotlib import pyplot as plt

from afteredit.analysis.__main__ import main
from afteredit.analysis.limits.lines import FILE, panels
from afteredit.analysis.limits.page import limits_table
from afteredit.analysis.limits.picture import draw
from afteredit.analysis.read.run_folders import read
from afteredit.tests.analysis.conftest import checked, write_run

N = 40  # rows of nli; chance .5
CHECKPOINTS = (0, 50, 100, 200, 500, 1000)


def left(share: float) -> dict:
    """The scores of an ability of which this share is left: .9 unedited, .5 chance."""
    n_right = round(N * (0.5 + 0.4 * share))
    return {"nli": [1.0] * n_right + [0.0] * (N - n_right)}


def long_run(runs, name, seed=0, shares=(1.0,) * 6, holds=(0.0, 1.0, 1.0, 1.0, 0.5, 0.3), said=None, size=50,
             order="file", dropped=None, checkpoints=CHECKPOINTS, **config):  # fmt: skip
    """A run in batches of `size`, of whose edits these shares hold after each checkpoint."""
    edits = {"name": "counterfact_3k", "order": order}
    scores = dict(zip(checkpoints, map(left, shares), strict=True))
    folder = write_run(runs, name, seed, scores, measurable=("nli",),
                       config={"edits": edits, "batch_size": size, **config})  # fmt: skip
    (path,) = folder.glob("results-*.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row, hold, say in zip(rows, holds, said or holds, strict=True):
        row |= {"editing/retained/prob/efficacy": hold, "editing/retained/generated/efficacy": say}
    path.write_text("".join(map(checked, rows)))
    diagnostics = [{}] * (checkpoints[-1] // size) if dropped is None else [{"dropped": float(n)} for n in dropped]
    records = [{"n_edits": size * (i + 1), "requests": [{"id": str(j)} for j in range(size)], "edit_s": 100.0,
                "diagnostics": each} for i, each in enumerate(diagnostics)]  # fmt: skip
    (folder / "edits.jsonl").write_text("".join(map(checked, records)))
    return folder


def only_table(folder) -> pd.DataFrame:
    ((_, lines),) = panels(read([folder])).items()
    return limits_table(lines).set_index("method")


def test_losses_are_counted_at_the_first_checkpoint_that_shows_them(tmp_path):
    long_run(tmp_path, "memit_seq", shares=(1.0, 1.0, 0.875, 0.75, 0.5, 0.25), said=(0.0, 0.9, 0.9, 0.4, 0.6, 0.2))
    row = only_table(tmp_path).loc["memit_seq"]
    assert row["until 10 % of abilities are lost"] == "100" and row["until 50 % of abilities are lost"] == "500"
    assert row["until half of the edits no longer hold"] == "500" and row["until half are no longer said"] == "200"
    assert (row["edits"], row["batch"], row["s an edit"]) == ("1000", "50", "2.0")
    assert (row["abilities left (%)"], row["edits that hold (%)"], row["edits said (%)"]) == ("25.0", "30.0", "20.0")
    assert row["collapse"] == "> 1000" and row["edits not written"] == ""


def test_what_has_not_come_is_said_with_the_runs_last_edit(tmp_path):
    long_run(tmp_path, "memit", holds=(0.0,) + (0.9,) * 5, dropped=[3, 0, 2] + [0] * 17)
    row = only_table(tmp_path).loc["memit"]
    for column in ("until 10 % of abilities are lost", "until half of the edits no longer hold", "collapse"):
        assert row[column] == "> 1000"
    assert row["edits not written"] == "5"


def test_edits_retained_are_over_all_edits_and_not_over_the_panels(tmp_path):
    folder = long_run(tmp_path, "memit", holds=(0.0, 1.0, 1.0, 0.9, 0.6, 0.7), said=(0.0, 1.0, 1.0, 0.9, 0.8, 0.8))
    (path,) = folder.glob("results-*.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row, estimate in ((rows[4], 0.45), (rows[5], 0.35)):
        row |= {"editing/retained_estimate/prob/efficacy": estimate, "editing/retained/prob/paraphrase": 0.8,
                "editing/retained_estimate/prob/paraphrase": 0.5}  # fmt: skip
    rows[5]["editing/retained_by_all/prob/efficacy"] = 0.3
    path.write_text("".join(map(checked, rows)))
    row = only_table(tmp_path).loc["memit"]
    assert (row["until half of the edits no longer hold"], row["edits that hold (%)"]) == ("500", "30.0")
    assert (row["edits said (%)"], row["in other words (%)"], row["neighbours unchanged (%)"]) == ("80.0", "50.0", "")
    ((_, lines),) = panels(read([tmp_path])).items()
    assert [row["editing/retained/prob/efficacy"] for row in lines["memit"][0].rows] == [0.0, 1.0, 1.0, 0.9, 0.45, 0.3]


def test_the_page_says_what_is_left_of_each_ability_and_keeps_its_points(tmp_path):
    long_run(tmp_path / "runs", "memit", 1, shares=(1.0, 1.0, 0.875, 0.75, 0.5, 0.25))
    assert only_table(tmp_path / "runs").loc["memit"]["nli left (%)"] == "25.0"
    assert main(["limits", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    points = pd.read_csv(tmp_path / "out" / "points.csv")
    assert points["ability/nli"].tolist() == pytest.approx([0.9, 0.9, 0.85, 0.8, 0.7, 0.6])
    assert {"editing/retained/prob/paraphrase", "editing/retained/prob/neighbourhood"} <= set(points)


def test_where_no_ability_is_measurable_no_loss_is_denied(tmp_path):
    write_run(tmp_path, "memit", 1, {0: left(1), 50: left(0)}, measurable=())
    row = only_table(tmp_path).loc["memit"]
    assert row["until 10 % of abilities are lost"] == row["until 50 % of abilities are lost"] == ""
    assert row["abilities left (%)"] == ""


def test_a_share_of_the_unedited_model_is_no_edit_that_was_lost(tmp_path):
    """At 0 edits hardly any new answer is the likelier one."""
    long_run(tmp_path, "memit", holds=(0.1, 0.9, 0.9, 0.9, 0.9, 0.9))
    assert only_table(tmp_path).loc["memit"]["until half of the edits no longer hold"] == "> 1000"


def test_seeds_and_orders_are_one_line_and_batch_sizes_two(tmp_path):
    long_run(tmp_path, "memit_seq", 1)
    long_run(tmp_path, "memit_seq", 2, order="shuffled")
    long_run(tmp_path, "memit_seq", 3, size=10)
    table = only_table(tmp_path)
    assert table["runs"].to_dict() == {"memit_seq (batch_size=50)": "2", "memit_seq (batch_size=10)": "1"}


def recipe() -> dict:
    keys = yaml.safe_load(FILE.read_text(encoding="utf-8"))["method"]
    return {"_target_": "afteredit.edit.methods.memit_seq.MemitSeq", **keys}


def test_the_recipe_has_a_name_of_its_own(tmp_path):
    long_run(tmp_path, "memit_seq", 1, method=recipe() | {"ridge": 0.0})
    long_run(tmp_path, "memit_seq", 2, method=recipe())
    assert set(only_table(tmp_path).index) == {"memit_seq", "least_harm"}


def test_two_edit_sets_are_two_pictures(tmp_path):
    long_run(tmp_path / "runs", "memit", 1)
    folder = long_run(tmp_path / "runs", "memit_seq", 2)
    config = yaml.safe_load((folder / "config.yaml").read_text().partition("\n")[2])
    write_run(
        tmp_path / "runs", "memit_seq", 2, {0: left(1), 50: left(1)}, config=config | {"edits": {"name": "zsre_3k"}}
    )
    assert main(["limits", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"limits.md", "limits.csv", "points.csv", "limits-1.png", "limits-2.png"}
    page = (tmp_path / "out" / "limits.md").read_text()
    assert page.count("| method |") == 2 and "counterfact_3k" in page and "zsre_3k" in page


def test_a_name_that_looks_like_a_formula_is_drawn_as_it_is(tmp_path):
    long_run(tmp_path / "runs", "memit", 1, shares=(1.0, 1.0, 0.9, 0.8, 0.5, 0.0))
    (folder,) = (tmp_path / "runs").iterdir()
    config = yaml.safe_load((folder / "config.yaml").read_text().partition("\n")[2])
    write_run(tmp_path / "odd", "memit", 1, {0: left(1), 50: left(1)}, config=config | {"edits": {"name": r"$\frac$"}})
    assert main(["limits", str(tmp_path / "odd"), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "limits.png").stat().st_size > 20_000


def test_every_line_is_drawn_from_the_first_edit_on_a_logarithmic_axis(tmp_path):
    long_run(tmp_path, "memit", 1, shares=(1.0, 1.0, 0.9, 0.8, 0.5, 0.0))
    long_run(tmp_path, "rome", 2, size=1, checkpoints=(0, 1, 2), shares=(1.0, 0.5, 0.0), holds=(0.0, 1.0, 0.5))
    ((title, lines),) = panels(read([tmp_path])).items()
    figure = draw(title, lines)
    for axis, key in zip(figure.axes, ("ability/retained", "editing/retained/prob/efficacy"), strict=False):
        assert axis.get_xscale() == "log" and axis.get_xlim()[0] < 1 and axis.get_xlim()[1] > 1000
        drawn = {line.get_color(): list(line.get_ydata()) for line in axis.lines if line.get_marker() != "None"}
        expected = [[100 * row[key] for row in run.rows[1:]] for runs in lines.values() for run in runs]
        assert list(drawn.values()) == expected
    plt.close(figure)


def test_runs_whose_edits_do_not_add_up_are_refused(tmp_path, capsys):
    write_run(tmp_path / "runs", "rome", 1, {0: left(1), 1: left(1)}, config={"setting": "single"})
    assert main(["limits", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 2
    assert "experiment=limits" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_run_whose_edits_do_not_add_up_is_left_out_by_name(tmp_path, caplog):
    long_run(tmp_path / "runs", "memit", 1)
    single = write_run(tmp_path / "runs", "rome", 1, {0: left(1), 1: left(1)}, config={"setting": "single"})
    assert main(["limits", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    assert f"{single.name} is left out: its edits do not add up (setting=single)" in caplog.text


@pytest.mark.parametrize("command", ["limits", "study", "report"])
def test_a_damaged_line_is_named_at_the_top_of_the_page(tmp_path, command, capsys):
    """A line whose numbers were altered, so that its checksum is another."""
    run = long_run(tmp_path / "runs", "memit", size=1, checkpoints=(0, 5, 10, 15, 20, 25))
    (path,) = run.glob("results-*.jsonl")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], lines[1].replace('"n_edits": 5', '"n_edits": 6'), *lines[2:]]))
    assert main([command, str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 1
    (page,) = [*(tmp_path / "out").glob("*.md"), *(tmp_path / "out").glob("*.html")]
    text = page.read_text()
    said = f"{path.name}:2 is damaged: no JSON object that matches its checksum; it is left out: restore it"
    assert text.count(said) == 1 and text.index("Damaged files") < text.index(said)
    rest = {"limits": "Edits until", "study": "Solid", "report": "<h3>"}[command]
    assert text.index(said) < text.index(rest)


def test_runs_without_a_line_are_named_on_the_page(tmp_path):
    long_run(tmp_path / "runs", "memit")
    alone = long_run(tmp_path / "runs", "rome", setting="single")
    assert main(["limits", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "limits.md").read_text()
    assert f"- {alone.name} is left out: its edits do not add up (setting=single)" in page
