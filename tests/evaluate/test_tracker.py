"""W&B is a mirror: where it goes is decided by the environment, what it gets has fixed steps."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from afteredit.evaluate.tracker import Mode, Tracker, TrackerSettings, _mode

VARIABLES = ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_IDENTITY_TOKEN_FILE", "NETRC", "WANDB_SWEEP_ID",
             "WANDB_RUN_GROUP")  # fmt: skip


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
    assert _mode(Mode.auto) == "offline"


def test_with_a_key_it_is_tracked_online(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert _mode(Mode.auto) == "online"


def test_a_key_in_netrc_counts_for_its_own_host_only(monkeypatch, tmp_path):
    netrc(tmp_path, "api.wandb.ai")
    assert _mode(Mode.auto) == "online"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert _mode(Mode.auto) == "offline"


@pytest.mark.parametrize("mode", ["online", "offline", "disabled"])
def test_wandb_mode_decides_before_the_key(monkeypatch, mode):
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setenv("WANDB_MODE", mode)
    assert _mode(Mode.auto) == mode


@pytest.mark.parametrize("mode", ["online", "offline", "disabled"])
def test_a_mode_given_in_the_config_is_taken(monkeypatch, mode):
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert _mode(Mode(mode)) == mode


class FakeRun:
    id, project, url, offline = "r1", "afteredit", None, True

    def __init__(self, folder):
        self.dir = str(folder / "wandb" / "offline-run-20260101_000000-r1" / "files")
        self.logged, self.axes, self.summary, self.artifacts, self.exit_code = [], {}, {}, [], None

    def define_metric(self, name, step_metric=None):
        self.axes[name] = step_metric

    def log(self, row, step):
        self.logged.append((step, row))

    def log_artifact(self, artifact):
        self.artifacts.append(artifact)

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


CONFIG = {"method": "rome", "model": "smollm2", "n_edits": 2}


def tracker(tmp_path, mode: Mode = Mode.auto, **settings) -> Tracker:
    return Tracker(TrackerSettings(mode=mode, **settings), tmp_path, "r1", CONFIG, "abc123")


def test_edits_have_even_steps_checkpoints_odd_ones_and_n_edits_is_the_axis(wandb_fake, tmp_path):
    tracked = tracker(tmp_path)
    tracked.checkpoint({"n_edits": 0, "ability/nli": 0.75, "weights_sha256": "e3b0", "measurable": ["nli"]})
    record = {"n_edits": 1, "edit_s": 2.5, "diagnostics": {"kl": 0.1}}
    tracked.edit(record, {"edit/immediate/prob/efficacy": 1.0})
    tracked.checkpoint({"n_edits": 1, "ability/nli": 0.5})
    tracked.checkpoint({"n_edits": 1, "ability/nli": 0.5})  # sent already
    assert wandb_fake.run.logged == [
        (1, {"n_edits": 0, "ability/nli": 0.75}),  # numbers only
        (2, {"n_edits": 1, "time/edit_s": 2.5, "edit/kl": 0.1, "edit/immediate/prob/efficacy": 1.0}),
        (3, {"n_edits": 1, "ability/nli": 0.5}),
    ]
    assert wandb_fake.run.axes == {"n_edits": None, "*": "n_edits"}
    assert tracked.ids["folder"].endswith("offline-run-20260101_000000-r1") and tracked.ids["url"] == ""


def test_a_run_is_begun_under_its_own_id_with_group_tags_and_commit(wandb_fake, tmp_path):
    tracker(tmp_path, tags=["a", "b"], project="p", entity="e")
    (given,) = wandb_fake.calls
    assert (given["mode"], given["dir"], given["name"]) == ("offline", str(tmp_path), tmp_path.name)
    assert (given["id"], given["project"], given["entity"], given["tags"]) == ("r1", "p", "e", ["a", "b"])
    assert (given["group"], given["config"]) == ("rome-smollm2", CONFIG)
    assert "resume" not in given and given["settings"].git_commit == "abc123"


def test_a_group_comes_from_the_config_then_from_the_environment(wandb_fake, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_GROUP", "theirs")
    tracker(tmp_path)
    tracker(tmp_path, group="ours")
    assert [call["group"] for call in wandb_fake.calls] == ["theirs", "ours"]


def test_under_an_agent_the_id_project_and_entity_are_the_agents(wandb_fake, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    tracker(tmp_path)
    assert not {"id", "project", "entity"} & set(wandb_fake.calls[0])


def journal_and_results(folder) -> list[dict]:
    """One edit's record, and the files of a run directory."""
    request = {"id": "f1", "prompt": "{} is in", "subject": "Lima", "target_new": "Chad"}
    for name in ("results-1.jsonl", "results-2.jsonl", "config.yaml", "edits.jsonl", "environment.json",
                 "samples/1-000000.parquet", "updates/000000.safetensors"):  # fmt: skip
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    said = [{"request": "f1", "before": " Peru", "after": " Chad"}]
    return [{"n_edits": 1, "requests": [request], "generated": said}, {"n_edits": 2, "requests": [request]}]


@pytest.mark.parametrize("log_updates", [False, True])
def test_the_end_sends_summary_table_and_files_and_updates_where_asked_for(wandb_fake, tmp_path, log_updates):
    records = journal_and_results(tmp_path)
    tracked = tracker(tmp_path, log_updates=log_updates)
    assert not tracked.delivered
    tracked.finish({"summary/nli/area": 0.8}, records)
    table = wandb_fake.run.summary.pop("edits")
    assert wandb_fake.run.summary == {"summary/nli/area": 0.8}
    assert table.columns == ["n_edits", "prompt", "target", "before", "after"]
    assert table.data == [[1, "Lima is in", "Chad", " Peru", " Chad"], [2, "Lima is in", "Chad", None, None]]
    (artifact,) = wandb_fake.run.artifacts
    assert (artifact.name, artifact.type) == ("results-r1", "results")
    expected = {"results-1.jsonl", "results-2.jsonl", "config.yaml", "edits.jsonl", "samples/1-000000.parquet"}
    assert set(artifact.manifest.entries) == expected | ({"updates/000000.safetensors"} if log_updates else set())
    assert wandb_fake.run.exit_code == 0 and tracked.delivered


def test_the_log_of_an_earlier_start_is_passed_by_and_that_of_another_run_is_not(wandb_fake, tmp_path):
    earlier, own, other = (tmp_path / "wandb" / f"offline-run-2026010{day}_000000-{run_id}"
                           for day, run_id in ((0, "r1"), (1, "r1"), (0, "other-r1")))  # fmt: skip
    for folder in (earlier, own, other):
        folder.mkdir(parents=True)
    wandb_fake.run.dir = str(own / "files")
    tracker(tmp_path).finish({}, [])
    assert [path.name for path in (tmp_path / "wandb").rglob("*.synced")] == ["run-r1.wandb.synced"]
    assert (earlier / "run-r1.wandb.synced").exists()


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
    tracked.finish({}, [])
    assert tracked.ids == {} and list(tmp_path.iterdir()) == []


def test_a_server_that_cannot_be_reached_leaves_the_run_offline(wandb_fake, tmp_path, monkeypatch, caplog):
    import wandb

    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    wandb_fake.fails_first = wandb.errors.CommError("no route")
    tracker(tmp_path, Mode.online).checkpoint({"n_edits": 0})
    assert [call["mode"] for call in wandb_fake.calls] == ["online", "offline"]
    assert wandb_fake.run.logged == [(1, {"n_edits": 0})]
    assert "no route" in caplog.text


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
    tracked.finish({}, [])
    assert caplog.text.count("gone") == 3 and not tracked.delivered
