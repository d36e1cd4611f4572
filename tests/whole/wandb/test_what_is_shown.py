"""What W&B shows: of a run that collapses and is begun twice, its address, alerts, inputs, name and config; and the
dashboard, with the real wandb-workspaces: what is stored on the server, and what a second call changes there."""

from __future__ import annotations

import base64
import contextlib
import copy
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from afteredit.analysis.__main__ import main as analyse
from afteredit.record.settings import TrackerSettings
from afteredit.record.tracking.tracker import Tracker
from afteredit.run import main
from afteredit.store.checked_lines import Lines

PROJECT = "default/afteredit"
OTHERS = {"nw-nwuseradmin-v": "a person's own workspace", "nw-a1b2c3d4e5f-v": "a view that somebody saved"}
BARELY_WORSE = "collapse_perplexity=1.0000001"  # times the unedited model's: a collapse


@dataclass
class Shown:
    """A run that was begun twice, as the server had it then."""

    run_id: str
    run: dict[str, Any]
    artifacts: dict[str, Any]
    said: list[str]  # by each of the two commands
    folder: Path


@pytest.fixture(scope="module")
def server(make_server, tmp_path_factory):
    """A server that knows this process, and two views that are not ours."""
    import wandb

    server = make_server()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment(tmp_path_factory.mktemp("home")).items():
            patch.setenv(name, value)
        wandb.teardown()
        for name, title in OTHERS.items():
            server.graphql("UpsertView2", {"entityName": "default", "projectName": "afteredit", "name": name,
                                           "displayName": title, "type": "project-view", "spec": "{}"})  # fmt: skip
        yield server
        wandb.teardown()


@pytest.fixture(scope="module")
def shown(server, fixed, tmp_path_factory) -> Shown:
    import wandb

    runs, said = tmp_path_factory.mktemp("runs"), []
    for _ in range(2):
        wandb.teardown()
        with contextlib.redirect_stdout(io.StringIO()) as out:
            given = ["limit=8", "n_edits=2", "task.sentiment.chance=0.1", BARELY_WORSE, "constraint=rect", "seed=1"]
            assert main([*fixed, *given, f"runs={runs}"]) == 0
        said.append(out.getvalue())
    ((run_id, run),) = server.state()["runs"].items()
    return Shown(run_id, run, server.state()["artifacts"], said, next(runs.glob("*/edits.jsonl")).parent)


@pytest.fixture(scope="module")
def project(server, shown, records_of):
    """That run beside its numbers under another seed, and under another layer in a sweep."""
    import wandb

    config = {key: node["value"] for key, node in shown.run["config"].items() if key != "_wandb"}
    records, summary = records_of(shown.folder), shown.run["summary"]
    track_again("other-seed", config | {"seed": 2}, shown.folder, records, summary)
    layer = copy.deepcopy(config)
    layer["resolved"]["method"]["layer"] = 0
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"SWEEP_ID": "v1s2", "RUN_ID": "in-a-sweep", "PROJECT": "afteredit"}.items():
            patch.setenv(f"WANDB_{name}", value)
        wandb.teardown()
        track_again("in-a-sweep", layer, shown.folder, records, summary)
    wandb.teardown()


def track_again(run_id: str, config: dict, folder, records: list[dict], summary: dict) -> None:
    """Sends a run's numbers under another id and config."""
    (results,) = folder.glob("results-*.jsonl")
    (folder / "elsewhere").mkdir(exist_ok=True)
    tracker = Tracker(TrackerSettings(), folder / "elsewhere", run_id, config, "abc123")
    for row in Lines(results).records:
        for record in (record for record in records if record["n_edits"] == row["n_edits"]):
            tracker.edit(record, {})
        tracker.checkpoint(row)
    tracker.finish({key: value for key, value in summary.items() if key.startswith("summary/")}, [], pd.DataFrame())


def test_the_address_is_said_before_the_first_edit(server, shown):
    url, said = f"W&B      {server.url}/{PROJECT}/runs/{shown.run_id}\n", shown.said
    assert said[0].index(url) < said[0].index("edit 1")


def test_alerts_are_sent_once_though_the_run_was_begun_twice(shown):
    assert shown.run["begun"] == 2 and "finished already" in shown.said[1]
    collapse, end = shown.run["alerts"]
    assert collapse["severity"] == "WARN" and collapse["title"].startswith("the model collapsed at ")
    assert "times the unedited model's" in collapse["text"]
    assert (end["severity"], end["title"]) == ("INFO", "the run has ended after 2 edits")


def test_the_model_and_the_edit_set_are_its_inputs_without_their_contents(server, shown, place):
    run = shown.run
    used = [shown.artifacts[name] for name in dict.fromkeys(run["used"])]
    kinds = {artifact["type"]: artifact for artifact in used}
    assert set(kinds) == {"model", "edit-set"} and {tuple(artifact["files"]) for artifact in used} == {("source.json",)}
    config = {key: node["value"] for key, node in run["config"].items()}
    assert kinds["model"]["name"] == f"model-model-{config['fingerprint'][:8]}"
    assert kinds["edit-set"]["name"] == f"edit-set-facts-{config['facts'][:8]}"
    for number in run["used"]:
        described = (server.folder / "artifacts" / number / "source.json").read_text()
        assert json.loads(described)["source"] in ("model", "facts") and str(place) not in described


def test_its_name_says_what_it_is_and_its_config_leaves_out_long_texts(shown):
    assert shown.run["displayName"] == "rome · model · rect · sequential · seed 1"
    config = {key: node["value"] for key, node in shown.run["config"].items()}
    assert shown.run_id.startswith(config["run"])
    assert config["resolved"]["task"]["sentiment"]["lm_eval"]["num_fewshot"] == 4
    assert "samples" not in json.dumps(config) and "edit" not in config["resolved"]["model"]


@pytest.fixture(scope="module")
def saved(server, project) -> dict[str, Any]:
    assert analyse(["dashboard", "--wandb", PROJECT]) == 0
    return ours(server)


def ours(server) -> dict[str, Any]:
    """The stored views that were not there before, by type; each with its id and its specification."""
    return {view["type"]: {**view, "id": name, "spec": json.loads(view["spec"])}
            for name, view in server.state()["views"].items() if view["name"] not in OTHERS}  # fmt: skip


def sections(view: dict[str, Any]) -> dict[str, dict]:
    return {one["name"]: one for one in view["spec"]["section"]["panelBankConfig"]["sections"]}


def grids(view: dict[str, Any]) -> list[dict]:
    return [block["metadata"] for block in view["spec"]["blocks"] if block["type"] == "panel-grid"]


def panels(saved: dict[str, Any]) -> Iterator[dict]:
    """Every panel of the workspace and of the report."""
    for one in sections(saved["project-view"]).values():
        yield from one["panels"]
    for grid in grids(saved["runs"]):
        yield from grid["panelBankSectionConfig"]["panels"]


def test_every_number_that_is_named_is_one_that_a_run_holds(server, saved):
    history = {key for run_id in server.state()["runs"] for key, *_ in server.stored(run_id)}
    summary = {key for run in server.state()["runs"].values() for key in run["summary"]}
    lines, bars, parallel = (
        [panel["config"] for panel in panels(saved) if panel["viewType"] == kind]
        for kind in ("Run History Line Plot", "Bar Chart", "Parallel Coordinates Plot")
    )
    assert len(history) > 40 and {metric for line in lines for metric in line["metrics"]} | {"n_edits"} == history
    assert (
        {"summary/retained/area", "summary/collapse"} < {metric for bar in bars for metric in bar["metrics"]} <= summary
    )
    columns = [column["accessor"].split(":", 1) for plot in parallel for column in plot["columns"]]
    assert {name for kind, name in columns if kind == "summary"} <= summary
    assert {name for kind, name in columns if kind == "config"} == {"method.value", "resolved.value.method.layer",
                                                                    "seed.value"}  # fmt: skip
    assert "answers" in json.dumps(sections(saved["project-view"])["What the model said"]) and "answers" in summary


def test_every_curve_is_over_edits_and_grouped_by_what_parts_runs_but_the_seed(saved):
    section = saved["project-view"]["spec"]["section"]
    assert section["settings"]["xAxis"] == "n_edits"
    assert saved["project-view"]["spec"]["section"]["panelBankConfig"]["settings"]["autoOrganizePrefix"] == 1
    for panel in panels(saved):
        if panel["viewType"] == "Run History Line Plot":
            assert panel["config"]["xAxis"] == "n_edits"
            assert (panel["config"]["groupAgg"], panel["config"]["groupArea"]) == ("mean", "minmax")
    grouping = [{"section": "config", "name": name} for name in ("method.value", "resolved.value.method.layer")]
    for runs in (section["runSets"], *(grid["runSets"] for grid in grids(saved["runs"]))):
        assert [one["grouping"] for one in runs] == [grouping]


def test_the_curves_that_matter_come_first_and_diagnostics_are_folded_away(saved):
    found = sections(saved["project-view"])
    assert list(found)[:4] == ["What is left of the model", "What runs come down to", "What the model said",
                               "Drift, layer by layer"]  # fmt: skip
    assert [one["isOpen"] for one in found.values()] == [True] * 3 + [False] * (len(found) - 3)
    curves = [(panel["config"]["metrics"], panel["config"].get("yLogScale")) for panel in
              found["What is left of the model"]["panels"]]  # fmt: skip
    assert curves[:3] == [
        (["ability/retained"], None),
        (["drift/perplexity"], True),
        (["editing/immediate/prob/efficacy", "editing/retained/prob/efficacy"], None),
    ]
    assert curves[-1] == (["ability/sentiment", "chance/sentiment"], None)
    assert [panel["config"]["metrics"] for panel in found["Drift, layer by layer"]["panels"]] == [
        ["drift/1/relative_norm"],
        ["drift/1/spectral_norm"],
    ]


def test_the_report_says_how_the_curves_are_read(saved):
    headings = [block["children"][0]["text"] for block in saved["runs"]["spec"]["blocks"] if block["type"] == "heading"]
    assert headings[0] == "How to read the curves" and len(headings) == len(grids(saved["runs"])) + 1
    assert "0 is guessing" in json.dumps(saved["runs"]["spec"])


def test_saving_again_changes_the_same_two_and_no_view_of_anybody_else(server, saved, monkeypatch, capsys):
    from afteredit.analysis.dashboard import page

    before = server.state()["views"]
    monkeypatch.setattr(page, "CURVES", "Another heading")
    assert analyse(["dashboard", "--wandb", PROJECT]) == 0
    after = server.state()["views"]
    assert list(after) == list(before) and len(after) == len(OTHERS) + 2
    assert [name for name in after if after[name] == before[name]] == [
        name for name, view in before.items() if view["name"] in OTHERS
    ]
    changed = ours(server)
    assert list(sections(changed["project-view"]))[0] == "Another heading"
    out = capsys.readouterr().out
    assert f"dashboard   {server.url}/{PROJECT}?nw={changed['runs']['name']}\n" in out
    assert f"report      {server.url}/{PROJECT}/reports/" in out
    assert base64.b64decode(changed["runs"]["id"]).startswith(b"View:")


def test_a_sweep_has_a_workspace_of_its_own_with_its_runs_alone(server, saved, capsys):
    before = server.state()["views"]
    assert analyse(["dashboard", "--wandb", PROJECT, "--sweep", "v1s2"]) == 0
    new = {name: view for name, view in server.state()["views"].items() if name not in before}
    (view,) = (view for view in new.values() if view["type"] == "project-view")
    (runs,) = json.loads(view["spec"])["section"]["runSets"]
    assert "sweep" in json.dumps(runs["filters"]) and "v1s2" in json.dumps(runs["filters"])
    assert runs["grouping"] == [{"section": "config", "name": "method.value"}]  # no layer beside its own
    assert len(new) == 2
    assert analyse(["dashboard", "--wandb", PROJECT, "--sweep", "absent"]) == 2
    assert "--sweep absent has no run that logged a number" in " ".join(capsys.readouterr().err.split())


def test_without_the_library_the_command_that_installs_it_is_said(monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith(("wandb_workspaces", "afteredit.analysis.dashboard"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    assert analyse(["dashboard", "--wandb", PROJECT]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"install it: {sys.executable} -m pip install wandb-workspaces" in said
