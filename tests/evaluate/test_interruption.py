"""Signals: the first is remembered, the second acts, and handlers come back."""

import os
import signal

import pytest

from afteredit.evaluate.interruption import Interrupted, Interruption


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


def test_handlers_come_back_without_a_signal():
    before = [signal.getsignal(number) for number in Interruption.SIGNALS]
    with Interruption():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert [signal.getsignal(number) for number in Interruption.SIGNALS] == before
