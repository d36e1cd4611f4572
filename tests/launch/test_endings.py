"""Signals: the first is remembered, the second acts, and handlers come back."""

import os
import signal

import pytest

from afteredit.launch.endings import Interrupted, Interruption


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_raised_where_the_run_asks_for_it(number):
    before = signal.getsignal(number)
    with Interruption() as interruption:
        interruption.check()
        os.kill(os.getpid(), number)
        with pytest.raises(Interrupted) as stopped:
            interruption.check()
        assert stopped.value.exit_code == 128 + number
        assert signal.getsignal(number) == before  # a second one acts at once
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_where_nothing_is_lost_by_it_a_signal_is_raised_at_once(number):
    """Even inside code that catches every Exception."""
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as stopped, Interruption(at_once=True):
        try:
            os.kill(os.getpid(), number)
            pytest.fail("it went on")
        except Exception:  # noqa: BLE001
            pytest.fail("it was swallowed")
    assert stopped.value.exit_code == 128 + number
    assert signal.getsignal(number) == before


def test_inside_another_the_first_signal_waits_and_the_second_does_not():
    with Interruption(at_once=True), Interruption() as inner:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted):
            inner.check()


def test_handlers_come_back_without_a_signal():
    before = [signal.getsignal(number) for number in Interruption.SIGNALS]
    with Interruption():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert [signal.getsignal(number) for number in Interruption.SIGNALS] == before
