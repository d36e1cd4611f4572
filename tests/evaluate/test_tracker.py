"""W&B is a mirror: where it goes is decided by the environment, what it gets has fixed steps."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from afteredit.evaluate.tracker import Mode, Tracker, TrackerSettings, _mode

VARIABLES = ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_IDENTITY_TOKEN_FILE", "NETRC")


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
        self.dir = str(folder / "wandb" / "offline-run-1" / "files")
        self.logged, self.axes, self.summary, self.finished = [], {}, {}, False

    def define_metric(self, name, step_metric=None):
        self.axes[name] = step_metric

    def log(self, row, step):
        self.logged.append((step, row))

    def finish(self):
        self.finished = True


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


def tracker(tmp_path, mode: Mode = Mode.auto) -> Tracker:
    return Tracker(TrackerSettings(mode=mode), tmp_path, "r1", "rome-smollm2", {"n_edits": 2})


def test_edits_have_even_steps_checkpoints_odd_ones_and_n_edits_is_the_axis(wandb_fake, tmp_path):
    tracked = tracker(tmp_path)
    tracked.checkpoint({"n_edits": 0, "ability/nli": 0.75, "weights_sha256": "e3b0", "measurable": ["nli"]})
    record = {"n_edits": 1, "edit_s": 2.5, "diagnostics": {"kl": 0.1}}
    tracked.edit(record, {"edit/immediate/prob/efficacy": 1.0})
    tracked.checkpoint({"n_edits": 1, "ability/nli": 0.5})
    tracked.finish({"summary/nli/area": 0.8})
    assert wandb_fake.run.logged == [
        (1, {"n_edits": 0, "ability/nli": 0.75}),  # numbers only
        (2, {"n_edits": 1, "time/edit_s": 2.5, "edit/kl": 0.1, "edit/immediate/prob/efficacy": 1.0}),
        (3, {"n_edits": 1, "ability/nli": 0.5}),
    ]
    assert wandb_fake.run.axes == {"n_edits": None, "*": "n_edits"}
    assert wandb_fake.run.summary == {"summary/nli/area": 0.8} and wandb_fake.run.finished
    assert wandb_fake.calls[0]["mode"] == "offline" and wandb_fake.calls[0]["dir"] == str(tmp_path)
    assert (wandb_fake.calls[0]["id"], wandb_fake.calls[0]["resume"]) == ("r1", "allow")
    assert tracked.ids["folder"].endswith("offline-run-1") and tracked.ids["url"] == ""


def test_disabled_does_nothing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it would raise
    tracked = tracker(tmp_path, Mode.disabled)
    tracked.checkpoint({"n_edits": 0})
    tracked.edit({"n_edits": 1, "edit_s": 1.0, "diagnostics": {}}, {})
    tracked.finish({})
    assert tracked.ids == {} and list(tmp_path.iterdir()) == []


def test_a_server_that_cannot_be_reached_leaves_the_run_offline(wandb_fake, tmp_path, caplog):
    import wandb

    wandb_fake.fails_first = wandb.errors.CommError("no route")
    tracker(tmp_path, Mode.online).checkpoint({"n_edits": 0})
    assert [call["mode"] for call in wandb_fake.calls] == ["online", "offline"]
    assert wandb_fake.run.logged == [(1, {"n_edits": 0})]
    assert "no route" in caplog.text


def test_a_failing_log_or_finish_does_not_fail_the_run(wandb_fake, tmp_path, monkeypatch, caplog):
    tracked = tracker(tmp_path)

    def fails(*_, **__):
        raise ConnectionError("gone")

    monkeypatch.setattr(wandb_fake.run, "log", fails)
    monkeypatch.setattr(wandb_fake.run, "finish", fails)
    tracked.checkpoint({"n_edits": 0})
    tracked.finish({})
    assert caplog.text.count("gone") == 2
