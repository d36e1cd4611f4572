"""Reading through W&B's public API, against a stand-in for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb
import yaml
from wandb.sdk.lib.service.service_connection import WandbApiFailedError

from afteredit.analysis.numbers.comparison import comparisons
from afteredit.analysis.read import wandb_runs as from_wandb
from afteredit.analysis.read.run_folders import read
from afteredit.analysis.read.wandb_runs import read_project, read_sweep
from afteredit.record.environment import fingerprint
from afteredit.record.settings import Mode, TrackerSettings
from afteredit.record.tracking.tracker import Tracker
from afteredit.store.checked_lines import read_checked
from afteredit.store.errors import BadInput

URL = "https://wandb.example/lab/edits/runs"
START = {"nli": [1.0] * 9 + [0.0], "reasoning": [0.0] * 10}
WORSE = {"nli": [1.0] * 7 + [0.0] * 3, "reasoning": [0.0] * 10}


def artifact(folder: Path, run_id: str, version: int):
    """What the run logged: `folder` as it was."""

    def download(root):
        return shutil.copytree(folder, root, dirs_exist_ok=True, ignore=shutil.ignore_patterns("environment.json"))

    name = f"results-{run_id}:v{version}"
    return SimpleNamespace(type="results", name=name, version=f"v{version}", download=download)


class Sent:
    """A W&B run that keeps what the tracker sends."""

    offline, id, url = True, "x1", None

    def __init__(self, folder: Path):
        self.dir, self.lines, self.summary = str(folder / "wandb" / "offline-run" / "files"), [], {}

    def define_metric(self, *_, **__):
        pass

    def log(self, row, step, commit):
        self.lines.append({"_step": step, **row})


def tracked(folder: Path, run_id: str, artifacts=()):
    """A W&B run as the tracker leaves it before its end, seen through W&B's API."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    names = {"method": "rome", "model": "tiny", "edits": "facts", "task": list(config["task"])}
    stored = read_checked(folder / "environment.json")
    whole = {**config, **names, "overrides": [], "resolved": config, "evaluation": "aaaaaaaa", "commit": "abc123",
             "facts": stored["facts"], "fingerprint": fingerprint(stored["model"])}  # fmt: skip
    sent = Sent(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wandb, "init", lambda **_: sent)
        tracker = Tracker(TrackerSettings(mode=Mode.offline), folder, run_id, whole, "abc123")
    for line in (folder / "results-aaaaaaaa.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["n_edits"]:
            tracker.edit({"n_edits": row["n_edits"], "edit_s": 1.0, "diagnostics": {"kl": 0.1}},
                         {"edit/immediate/prob/efficacy": 1.0})  # fmt: skip
        tracker.checkpoint(row)
    others = [SimpleNamespace(type="wandb-history", name="history:v9", version="v9"), *artifacts]
    return SimpleNamespace(id=run_id, name=folder.name, config=whole, summary=sent.summary,
                           url=f"{URL}/{run_id}", created_at="2026-11-29T21:43:05Z",
                           scan_history=lambda: iter(sent.lines), logged_artifacts=lambda: others)  # fmt: skip


def api(*runs, path="lab/edits"):
    def listed(asked):
        if asked != path:
            raise ValueError(f"Could not find project {asked}")
        return list(runs)

    return SimpleNamespace(runs=listed, sweep=lambda asked: SimpleNamespace(runs=listed(asked)))


@pytest.fixture
def folder(tmp_path, made_run) -> Path:
    return made_run(tmp_path, "rome", 1, {0: START, 5: WORSE, 10: WORSE})


@pytest.mark.parametrize("read_from", [read_project, read_sweep])
def test_the_newest_artifact_is_the_run_itself(folder, tmp_path, made_run, read_from):
    older = made_run(tmp_path / "older", "rome", 1, {0: START})
    found = read_from("lab/edits", api(tracked(folder, "x1", [artifact(older, "x1", 2), artifact(folder, "x1", 10)])))
    assert_same(found, read([folder]))


def test_another_runs_artifact_is_not_taken(folder):
    (run,) = read_project("lab/edits", api(tracked(folder, "x1", [artifact(folder, "other", 0)])))
    assert run.samples.empty


def test_without_an_artifact_the_history_gives_the_same_curves_without_bands(folder):
    (found,) = comparisons(read_project("lab/edits", api(tracked(folder, "x1"))))
    (local,) = comparisons(read([folder]))
    columns = ["method", "n_edits", "curve", "value"]
    assert found.curves[columns].equals(local.curves[columns]) and len(found.curves) == 3 * 5
    assert found.curves["low"].isna().all() and found.measurable == ["nli"]
    assert found.summaries.drop(columns="run").equals(local.summaries.drop(columns="run"))
    made = found.first.made
    assert (made.url, made.began, made.commit) == (f"{URL}/x1", "2026-11-29T21:43:05Z", "abc123")
    assert found.title == local.title and found.chance == local.chance == {"nli": 0.5, "reasoning": 0.0}


def test_a_run_without_an_artifact_is_compared_with_one_that_has_it(folder, tmp_path, made_run):
    """One is at its end, the other is not: same config, same evaluation, two seeds of one curve."""
    other = made_run(tmp_path, "rome", 2, {0: START, 5: WORSE}, config={"seed": 2})
    crashed = tracked(other, "x2")
    (x,) = comparisons(read_project("lab/edits", api(tracked(folder, "x1", [artifact(folder, "x1", 0)]), crashed)))
    assert [run.name for run in x.runs["rome"]] == [folder.name, other.name]


def test_what_the_results_say_of_the_unedited_model_is_read_from_the_summary(folder, tmp_path):
    """Where chance is not in the config: an ability that lm-eval ships."""
    path = folder / "results-aaaaaaaa.jsonl"
    first, *others = path.read_text().splitlines()
    row = json.loads(first) | {"chance": {"nli": 0.25, "reasoning": 0.0}, "measurable": ["reasoning"]}
    path.write_text("\n".join([json.dumps(row), *others]) + "\n")
    (run,) = read_project("lab/edits", api(tracked(folder, "x1")))
    assert run.rows[0]["chance"] == {"nli": 0.25, "reasoning": 0.0} and run.rows[0]["measurable"] == ["reasoning"]
    (x,) = comparisons([run])
    assert x.chance["nli"] == 0.25 and x.measurable == ["reasoning"]


def test_numbers_that_json_has_not_come_as_text(folder):
    run = tracked(folder, "x1")
    rows = [{**row, "drift/perplexity": "NaN"} if row["n_edits"] == 10 and "drift/perplexity" in row else row
            for row in run.scan_history()]  # fmt: skip
    run.scan_history = lambda: rows
    (found,) = read_project("lab/edits", api(run))
    assert found.n_edits == 10 and found.collapsed_at == 10


def test_collapse_is_read_off_the_summary_where_there_is_no_journal(folder):
    run = tracked(folder, "x1")
    run.summary["summary/collapse"] = 7
    assert read_project("lab/edits", api(run))[0].collapsed_at == 7


def test_a_run_tracked_twice_is_taken_once_where_it_is_longest(folder):
    short = tracked(folder, "x1")
    rows = list(short.scan_history())[:1]
    short.scan_history = lambda: rows
    found = read_project("lab/edits", api(short, tracked(folder, "x2"), short))
    assert [run.n_edits for run in found] == [10]


def test_a_collapse_is_in_the_summary(folder):
    run = tracked(folder, "x1")
    run.summary["summary/collapse"] = 7
    (found,) = read_project("lab/edits", api(run))
    assert found.collapsed_at == 7


def test_runs_that_measured_nothing_yet_are_left_out_and_nothing_at_all_is_refused(folder):
    new = tracked(folder, "x1")
    new.scan_history = lambda: iter([])
    assert len(read_project("lab/edits", api(new, tracked(folder, "x2")))) == 1
    with pytest.raises(BadInput, match="--sweep lab/edits has no run with a measured checkpoint"):
        read_sweep("lab/edits", api(new))


@pytest.mark.parametrize("path", ["lab", "lab/edits/x", "/edits", "lab/"])
def test_a_project_is_entity_and_name(path):
    with pytest.raises(BadInput, match="must be ENTITY/PROJECT"):
        read_project(path, api())


@pytest.mark.parametrize("kind", [wandb.errors.CommError, WandbApiFailedError])
def test_what_wandb_refuses_is_said_in_one_line(monkeypatch, kind):
    with pytest.raises(BadInput, match=r"--wandb lab/absent cannot be read \(Could not find project lab/absent\)"):
        read_project("lab/absent", api())

    def refuse():
        raise kind("permission\ndenied")

    monkeypatch.setattr(from_wandb, "new_api", refuse)
    with pytest.raises(BadInput, match=r"--sweep x cannot be read \(permission denied\); check the name"):
        read_sweep("x")


def assert_same(found, wanted):
    (one,), (other,) = found, wanted
    assert (one.name, one.evaluation, one.rows, one.config) == (other.name, other.evaluation, other.rows, other.config)
    assert one.samples.equals(other.samples) and len(one.samples) == 60
