"""How a recorded run that is stopped ends, in W&B and for whoever began the process."""

from __future__ import annotations

import signal
from types import SimpleNamespace

import pytest

from afteredit.record import recorder as module
from afteredit.record.recorder import Recorder
from afteredit.record.settings import TrackerSettings
from afteredit.store.errors import Interrupted


class Asked:
    """A tracker whose server wants the run to end, or not."""

    ids: dict[str, str] = {}

    def __init__(self, asked: bool):
        self.asked, self.ended = asked, []

    def asked_to_stop(self) -> bool:
        return self.asked

    def end_early(self) -> None:
        self.ended.append("early")

    def preempt(self) -> None:
        self.ended.append("preempted")

    def fail(self) -> None:
        self.ended.append("failed")


def recorder_of(tracker: Asked, folder, monkeypatch) -> tuple[Recorder, list[str]]:
    said: list[str] = []
    console = SimpleNamespace(log=lambda text: said.append(str(text)))
    run = SimpleNamespace(folder=folder, leaves_pending=False, journal=SimpleNamespace(n_edits=7))
    monkeypatch.setattr(module, "begin_tracking", lambda *_: tracker)
    return Recorder(run, SimpleNamespace(console=console), lambda: None), said


@pytest.mark.parametrize(("asked", "code", "ended", "who"), [
    (True, 0, "early", "stopped by W&B after 7 edits"),  # any other code is a failure to an agent
    (False, 128 + signal.SIGTERM, "preempted", "stopped after 7 edits"),
])  # fmt: skip
def test_a_run_that_the_server_stops_is_no_failure_and_another_goes_on_later(
    tmp_path, monkeypatch, asked, code, ended, who
):
    tracker = Asked(asked)
    recorder, said = recorder_of(tracker, tmp_path, monkeypatch)
    with pytest.raises(Interrupted) as stopped, recorder.tracked(TrackerSettings(), {}):
        raise Interrupted(signal.SIGTERM)
    assert (stopped.value.exit_code, tracker.ended) == (code, [ended]) and said[0].startswith(who)


def test_any_other_end_is_a_failure_in_wandb(tmp_path, monkeypatch):
    tracker = Asked(False)
    recorder, _ = recorder_of(tracker, tmp_path, monkeypatch)
    with pytest.raises(ZeroDivisionError), recorder.tracked(TrackerSettings(), {}):
        raise ZeroDivisionError
    assert tracker.ended == ["failed"]
