"""The clock of a calibration, on a time that the test tells."""

from __future__ import annotations

import pytest
import torch

from afteredit.commands.plan.machine import Clock


@pytest.fixture
def clock(monkeypatch):
    """A clock at 0 s, and how often the work was done that takes `seconds` of it."""
    clock = Clock(torch.device("cpu"))
    clock.now, clock.calls = 0.0, 0
    monkeypatch.setattr(clock, "_now", lambda: clock.now)
    clock._began = 0.0
    return clock


def working(clock, *seconds: float):
    def work():
        clock.now += seconds[min(clock.calls, len(seconds) - 1)]
        clock.calls += 1

    return work


def test_all_measurements_share_ten_seconds(clock):
    """Forty percent of them, 4 s, go to the blocks."""
    clock.now = 3.9
    assert clock.has_time(0.4)
    clock.now = 4.1
    assert not clock.has_time(0.4) and clock.has_time(0.5)
    clock.now = 10.1
    assert not clock.has_time(1.0)


@pytest.mark.parametrize(("seconds", "calls"), [
    (0.01, 6),  # one that does not count, and five
    (0.3, 3),  # and two: 0.6 s are over half a second
    (2.0, 2),  # and one
])  # fmt: skip
def test_work_is_repeated_five_times_or_for_half_a_second(clock, seconds, calls):
    assert clock.median(working(clock, seconds)) == pytest.approx(seconds)
    assert clock.calls == calls


def test_the_median_and_the_spread_are_those_of_the_repetitions(clock):
    assert clock.median(working(clock, 9.0, 0.01, 0.03, 0.02, 0.02, 0.04)) == pytest.approx(0.02)
    assert clock.spread() == pytest.approx((0.04 - 0.01) / 2 / 0.02)
    clock.calls = 0
    clock.median(working(clock, 9.0, 0.02))
    assert clock.spread() == pytest.approx(0.75 / 2)
    clock.calls = 0
    clock.median(working(clock, 0.3))  # of two repetitions there is no spread
    assert clock.spread() == pytest.approx(0.75 / 2)
