"""W&B is a mirror: where it goes is decided by the environment, what it gets has fixed steps."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from afteredit.record.settings import Mode, TrackerSettings
from afteredit.record.tracking.start import tracking_mode
from afteredit.record.tracking.tracker import Tracker
from afteredit.store.errors import BadInput

VARIABLES = ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_IDENTITY_TOKEN_FILE", "NETRC", "WANDB_SWEEP_ID",
             "WANDB_RUN_GROUP", "WANDB_PROJECT", "WANDB_NAME", "WANDB_INIT_TIMEOUT",
             "WANDB_FINISH_TIMEOUT")  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch, tmp_path):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def netrc(tmp_path, host: str) -> None:
    path = tmp_path / ".netrc"
    path.write_text(f"machine {host}\n  login user\n  password {'k' * 40}\n")
    path.chmod(0o600)


def test_without_a_key_a_run_is_tracked_offline():
    assert tracking_mode(Mode.auto) == "offline"


def test_with_a_key_it_is_tracked_online(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert tracking_mode(Mode.auto) == "online"


def test_a_key_in_netrc_counts_for_its_own_host_only(monkeypatch, tmp_path):
    netrc(tmp_path, "api.wandb.ai")
    assert tracking_mode(Mode.auto) == "online"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert tracking_mode(Mode.auto) == "offline"


@pytest.mark.parametrize("mode", ["online", "offline", "disabled"])
def test_wandb_mode_decides_before_the_key(monkeypatch, mode):
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setenv("WANDB_MODE", mode)
    assert tracking_mode(Mode.auto) == mode


@pytest.mark.parametrize("mode", ["online", "offline", "disabled"])
def test_a_mode_given_in_the_config_is_taken(monkeypatch, mode):
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert tracking_mode(Mode(mode)) == mode


class FakeRun:
    id, project, url, offline = "r1", "afteredit", None, True

    def __init__(self, folder):
        self.dir = str(folder / "wandb" / "offline-run-20260101_000000-r1" / "files")
        self.logged, self.axes, self.summary, self.artifacts, self.exit_code = [], {}, {}, [], None

    def define_metric(self, name, step_metric=None, hidden=False):
        self.axes[name] = (step_metric, hidden)

    def log(self, row, step, commit):
        assert commit  # else W&B keeps the newest row back until the next one
        self.logged.append((step, row))

    def log_artifact(self, artifact):
        self.artifacts.append(artifact)

    def use_artifact(self, artifact):
        pytest.fail("an offline run was told of an input")

    def mark_preempting(self):
        assert self.exit_code is None

    def finish(self, exit_code):
        self.exit_code = exit_code


@pytest.fixture
def wandb_fake(monkeypatch, tmp_path):
    """wandb.init that records its arguments; `fails_first` makes the first call raise."""
    import wandb

    fake = SimpleNamespace(calls=[], run=FakeRun(tmp_path), fails_first=None)

    def init(**options):
        fake.calls.append(options)
        if fake.fails_first and len(fake.calls) == 1:
            raise fake.fails_first
        return fake.run

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr(wandb, "teardown", lambda: None)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("W&B asked something"))
    return fake


CONFIG = {"method": "rome", "model": "smollm2", "constraint": "rect", "setting": "sequential", "seed": 3, "n_edits": 2}


def tracker(tmp_path, mode: Mode = Mode.auto, edited: int = 0, measured: int = -1, **settings) -> Tracker:
    return Tracker(TrackerSettings(mode=mode, **settings), tmp_path, "r1", CONFIG, "abc123", edited, measured)


def test_edits_have_even_steps_checkpoints_odd_ones_and_n_edits_is_the_axis(wandb_fake, tmp_path):
    tracked = tracker(tmp_path)
    start = {"n_edits": 0, "ability/nli": 0.75, "weights_sha256": "e3b0", "measurable": ["nli"], "chance": {"nli": 0.5}}
    tracked.checkpoint(start)
    record = {"n_edits": 1, "edit_s": 2.5, "diagnostics": {"kl": 0.1}}
    tracked.edit(record, {"edit/immediate/prob/efficacy": 1.0})
    tracked.checkpoint({"n_edits": 1, "ability/nli": 0.5})
    tracked.checkpoint({"n_edits": 1, "ability/nli": 0.5})  # sent already
    assert wandb_fake.run.logged == [
        (1, {"n_edits": 0, "ability/nli": 0.75, "chance/nli": 0.5}),  # numbers only
        (2, {"n_edits": 1, "time/edit_s": 2.5, "edit/kl": 0.1, "edit/immediate/prob/efficacy": 1.0}),
        (3, {"n_edits": 1, "ability/nli": 0.5, "chance/nli": 0.5}),
    ]
    assert wandb_fake.run.summary == {"measurable": ["nli"], "chance": {"nli": 0.5}}
    assert wandb_fake.run.axes == {"n_edits": (None, True), "*": ("n_edits", False)}
    assert tracked.ids["folder"].endswith("offline-run-20260101_000000-r1") and tracked.ids["url"] == ""


def test_a_run_is_begun_under_its_own_id_with_group_tags_and_commit(wandb_fake, tmp_path):
    tracker(tmp_path, tags=["a", "b"], project="p", entity="e")
    (given,) = wandb_fake.calls
    assert (given["mode"], given["dir"], given["name"]) == (
        "offline",
        str(tmp_path),
        "rome · smollm2 · rect · sequential · seed 3",
    )
    assert (given["id"], given["project"], given["entity"], given["tags"]) == ("r1", "p", "e", ["a", "b"])
    assert (given["group"], given["config"]) == ("rome-smollm2", CONFIG)
    assert "resume" not in given and given["settings"].git_commit == "abc123"
    assert given["reinit"] == "finish_previous"


@pytest.mark.parametrize(("log_updates", "finish"), [(False, 60), (True, 300)])
def test_a_server_that_never_answers_costs_a_minute_and_longer_where_updates_are_sent(
    wandb_fake, tmp_path, log_updates, finish
):
    tracker(tmp_path, log_updates=log_updates)
    settings = wandb_fake.calls[0]["settings"]
    assert (settings.init_timeout, settings.finish_timeout, settings.finish_timeout_raises) == (30, finish, True)


def test_wandbs_own_variables_decide_how_long_a_server_is_waited_for(wandb_fake, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "7")
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "8.5")
    tracker(tmp_path)
    settings = wandb_fake.calls[0]["settings"]
    assert (settings.init_timeout, settings.finish_timeout) == (7, 8.5)


def test_a_group_comes_from_the_config_then_from_the_environment(wandb_fake, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_GROUP", "theirs")
    tracker(tmp_path)
    tracker(tmp_path, group="ours")
    assert [call["group"] for call in wandb_fake.calls] == ["theirs", "ours"]


def test_project_and_name_come_from_wandbs_own_environment_where_the_config_says_none(
    wandb_fake, tmp_path, monkeypatch
):
    tracker(tmp_path, project=None)
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    monkeypatch.setenv("WANDB_NAME", "friday")
    tracker(tmp_path, project=None)
    tracker(tmp_path, project="ours")
    assert [call["project"] for call in wandb_fake.calls] == ["afteredit", "theirs", "ours"]
    assert [call["name"] == "friday" for call in wandb_fake.calls] == [False, True, True]
    monkeypatch.setenv("WANDB_PROJECT", "a/b")
    with pytest.raises(BadInput, match="WANDB_PROJECT='a/b'; it must have"):
        TrackerSettings()


def test_under_an_agent_the_id_project_and_entity_are_the_agents(wandb_fake, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    tracker(tmp_path)
    assert not {"id", "project", "entity"} & set(wandb_fake.calls[0])


def journal_and_results(folder) -> list[dict]:
    """One edit's record, and the files of a run directory."""
    request = {"id": "f1", "prompt": "{} is in", "subject": "Lima", "target_new": "Chad"}
    for name in ("results-1.jsonl", "results-2.jsonl", "immediate-1.jsonl", "config.yaml", "edits.jsonl",
                 "environment.json", "samples/1-000000.parquet", "samples/texts.jsonl",
                 "updates/000000.safetensors"):  # fmt: skip
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    said = [{"request": "f1", "group": "efficacy", "before": " Peru", "after": " Chad"},
            {"request": "f1", "group": "neighbourhood", "before": " Rome", "after": " Rome"}]  # fmt: skip
    return [{"n_edits": 1, "requests": [request], "generated": said}, {"n_edits": 2, "requests": [request]}]


@pytest.mark.parametrize("log_updates", [False, True])
def test_the_end_sends_summary_table_and_files_and_updates_where_asked_for(wandb_fake, tmp_path, log_updates):
    records = journal_and_results(tmp_path)
    tracked = tracker(tmp_path, log_updates=log_updates)
    assert not tracked.delivered
    answers = pd.DataFrame(
        [{"ability": "nli", "row": "3", "question": "Is it?", "after 0": "✓ Yes", "after 5": "✗ No"}]
    )
    tracked.finish({"summary/nli/area": 0.8}, records, answers)
    table, said = wandb_fake.run.summary.pop("edits"), wandb_fake.run.summary.pop("answers")
    assert said.columns == list(answers) and said.data == answers.to_numpy().tolist()
    assert wandb_fake.run.summary == {"summary/nli/area": 0.8}
    assert table.columns == ["n_edits", "prompt", "target", "before", "after"]
    assert table.data == [[1, "Lima is in", "Chad", " Peru", " Chad"], [2, "Lima is in", "Chad", None, None]]
    (artifact,) = wandb_fake.run.artifacts
    assert (artifact.name, artifact.type) == ("results-r1", "results")
    expected = {"results-1.jsonl", "results-2.jsonl", "immediate-1.jsonl", "config.yaml", "edits.jsonl",
                "samples/1-000000.parquet", "samples/texts.jsonl"}  # fmt: skip
    assert set(artifact.manifest.entries) == expected | ({"updates/000000.safetensors"} if log_updates else set())
    assert wandb_fake.run.exit_code == 0 and tracked.delivered


@pytest.fixture
def starts(wandb_fake, tmp_path):
    """(earlier, own, other): the logs of an earlier start of the run, of this one, and of another run."""
    folders = [tmp_path / "wandb" / f"offline-run-2026010{day}_000000-{run_id}"
               for day, run_id in ((0, "r1"), (1, "r1"), (0, "other-r1"))]  # fmt: skip
    for folder in folders:
        folder.mkdir(parents=True)
    wandb_fake.run.dir = str(folders[1] / "files")
    return folders


def passed_by(tmp_path) -> list[Path]:
    return [path.parent for path in (tmp_path / "wandb").rglob("run-r1.wandb.synced")]


@pytest.mark.parametrize("end", ["finish", "preempt", "fail"])
def test_a_start_that_has_sent_only_a_part_of_what_was_held_is_passed_by_unless_the_run_is_whole(starts, tmp_path, end):
    earlier, own, _ = starts
    tracked = tracker(tmp_path, edited=2, measured=2)
    assert passed_by(tmp_path) == [own]
    tracked.checkpoint({"n_edits": 0})
    tracked.edit({"n_edits": 1, "edit_s": 1.0, "diagnostics": {}}, {})
    getattr(tracked, end)(*([{}, [], pd.DataFrame()] if end == "finish" else []))
    assert passed_by(tmp_path) == ([earlier] if end == "finish" else [own])


@pytest.mark.parametrize("end", ["finish", "preempt", "fail", "killed"])
def test_a_start_that_has_sent_more_takes_the_place_of_the_earlier_one(starts, tmp_path, end):
    earlier, own, _ = starts
    tracked = tracker(tmp_path, edited=1, measured=1)
    tracked.checkpoint({"n_edits": 0})
    tracked.edit({"n_edits": 1, "edit_s": 1.0, "diagnostics": {}}, {})
    assert passed_by(tmp_path) == [own]
    tracked.checkpoint({"n_edits": 1})  # all that was held: on the disk at the end of the run or a moment later
    if end == "killed":
        tracked.edit({"n_edits": 2, "edit_s": 1.0, "diagnostics": {}}, {})
    else:
        getattr(tracked, end)(*([{}, [], pd.DataFrame()] if end == "finish" else []))
    assert passed_by(tmp_path) == [earlier]


def test_the_first_start_is_never_passed_by(wandb_fake, tmp_path):
    Path(wandb_fake.run.dir).mkdir(parents=True)
    tracker(tmp_path, edited=9, measured=9).preempt()
    assert passed_by(tmp_path) == []


def test_a_run_that_could_not_go_on_has_failed_and_is_given_to_nobody(wandb_fake, tmp_path):
    wandb_fake.run.mark_preempting = lambda: pytest.fail("it would be handed out again")
    tracker(tmp_path).fail()
    assert wandb_fake.run.exit_code == 1 and wandb_fake.run.summary == {} and not wandb_fake.run.artifacts


def test_a_stopped_run_says_so_and_fails(wandb_fake, tmp_path):
    told = []
    wandb_fake.run.mark_preempting = lambda: told.append(wandb_fake.run.exit_code)
    tracker(tmp_path).preempt()
    assert told == [None] and wandb_fake.run.exit_code == 1


def test_disabled_does_nothing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it would raise
    tracked = tracker(tmp_path, Mode.disabled)
    tracked.checkpoint({"n_edits": 0})
    tracked.edit({"n_edits": 1, "edit_s": 1.0, "diagnostics": {}}, {})
    tracked.preempt()
    tracked.fail()
    tracked.finish({}, [], pd.DataFrame())
    assert tracked.ids == {} and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("problem", ["CommError", "OSError", "Exception"])
def test_a_server_that_cannot_be_used_leaves_the_run_offline(wandb_fake, tmp_path, monkeypatch, caplog, problem):
    import wandb

    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    kinds = {"CommError": wandb.errors.CommError, "OSError": OSError, "Exception": Exception}
    wandb_fake.fails_first = kinds[problem]("no route")
    tracker(tmp_path, Mode.online).checkpoint({"n_edits": 0})
    assert [call["mode"] for call in wandb_fake.calls] == ["online", "offline"]
    assert wandb_fake.run.logged == [(1, {"n_edits": 0})]
    assert "no route" in caplog.text


@pytest.mark.parametrize("variable", ["WANDB_INIT_TIMEOUT", "WANDB_FINISH_TIMEOUT", "WANDB_DISABLE_GIT"])
def test_a_setting_that_wandb_cannot_read_does_not_fail_the_run(tmp_path, monkeypatch, caplog, variable):
    """The real wandb."""
    import wandb

    wandb.teardown()
    monkeypatch.setenv(variable, "x")
    tracked = tracker(tmp_path)
    tracked.checkpoint({"n_edits": 0})
    tracked.finish({}, [], pd.DataFrame())
    assert "this run is not tracked" in caplog.text and tracked.ids == {} and not tracked.delivered


def test_an_axis_that_wandb_does_not_take_does_not_fail_the_run(wandb_fake, tmp_path, monkeypatch, caplog):
    def refuse(*_, **__):
        raise RuntimeError("no axis")

    def fail():
        raise AssertionError("not down")

    monkeypatch.setattr(wandb_fake.run, "define_metric", refuse)
    monkeypatch.setattr("wandb.teardown", fail)
    tracker(tmp_path).checkpoint({"n_edits": 0})
    assert wandb_fake.run.logged == [] and "no axis" in caplog.text and "not down" in caplog.text


def test_online_without_a_key_is_offline_and_asks_for_none(wandb_fake, tmp_path, caplog):
    tracker(tmp_path, Mode.online)
    assert [call["mode"] for call in wandb_fake.calls] == ["offline"]
    assert "no key" in caplog.text and "wandb login" in caplog.text


def test_a_failing_log_or_finish_does_not_fail_the_run(wandb_fake, tmp_path, monkeypatch, caplog):
    tracked = tracker(tmp_path)

    def fails(*_, **__):
        raise ConnectionError("gone")

    for name in ("log", "log_artifact", "finish"):
        monkeypatch.setattr(wandb_fake.run, name, fails)
    tracked.checkpoint({"n_edits": 0})
    tracked.finish({}, [], pd.DataFrame())
    assert caplog.text.count("gone") == 3 and not tracked.delivered
