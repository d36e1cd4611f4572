"""Leases: one holder at a time, and a dead one's lease is taken over."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from afteredit.store.errors import BadInput
from afteredit.store.locks.lease import claim, held, holder
from afteredit.store.locks.of_a_run import (
    claim_checkpoint,
    hold,
    is_edited,
    leave_to_others,
    refuse_lone_editing,
    refuse_measuring,
)


def dies(lease) -> Path:
    """Its process no longer renews it, and an hour goes by on the file system's clock."""
    lease._released.set()
    lease._thread.join()
    old = lease.path.stat().st_mtime - 3600
    os.utime(lease.path, (old, old))
    return lease.path


def test_one_process_holds_a_place_at_a_time(tmp_path):
    first = claim(tmp_path / "a")
    assert first is not None and claim(tmp_path / "a") is None
    assert str(os.getpid()) in (holder(tmp_path / "a") or "")
    assert claim(tmp_path / "ab") is not None
    first.release()
    assert holder(tmp_path / "a") is None and claim(tmp_path / "a") is not None


def test_of_many_that_take_over_a_dead_holders_lease_one_gets_it(tmp_path):
    left = dies(claim(tmp_path / "a"))
    (tmp_path / "a.note").write_text("no lease")
    taken = []
    threads = [threading.Thread(target=lambda: taken.append(claim(tmp_path / "a"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (lease,) = filter(None, taken)
    assert lease.path != left and holder(tmp_path / "a") is not None
    lease.release()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.note"]  # the dead one's is gone too


def test_a_renewed_lease_does_not_expire_and_one_that_was_taken_over_is_not_renewed(tmp_path):
    lease = claim(tmp_path / "a", seconds=0.3)
    time.sleep(0.5)
    assert claim(tmp_path / "a") is None
    newer = claim(tmp_path / "a", take_over=True)
    time.sleep(0.2)
    changed = lease.path.stat().st_mtime_ns
    time.sleep(0.2)
    assert lease.path.stat().st_mtime_ns == changed
    lease.release()  # wakes up late: takes nothing from who holds it now
    assert newer.path.exists() and holder(tmp_path / "a") is not None


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b'{"seconds": "x", "host": 1, "pid": 2}'])
def test_a_holder_that_died_before_it_could_write_or_wrote_nonsense_is_judged_by_its_age(tmp_path, content):
    path = tmp_path / "a.000000"
    path.write_bytes(content)
    assert claim(tmp_path / "a") is None
    old = path.stat().st_mtime - 61
    os.utime(path, (old, old))
    assert claim(tmp_path / "a") is not None


def test_held_waits_and_can_be_interrupted(tmp_path):
    order = []
    with held(tmp_path / "a"):
        waiting = threading.Thread(target=lambda: [order.append("in") for _ in [0] if _enter(tmp_path / "a")])
        waiting.start()
        with pytest.raises(InterruptedError), held(tmp_path / "a", check=_stop):
            order.append("never")
        order.append("out")
    waiting.join()
    assert order == ["out", "in"]


def _enter(place: Path) -> bool:
    with held(place):
        return True


def _stop() -> None:
    raise InterruptedError


def test_a_process_that_measures_alone_and_those_that_share_a_run_refuse_each_other(tmp_path):
    lease = claim_checkpoint(tmp_path, "0123abcd", 5, 60)
    with pytest.raises(BadInput, match=f"replay.pending=true .process {os.getpid()} on"):
        refuse_measuring(tmp_path)
    lease.release()
    refuse_measuring(tmp_path)
    lock = hold(tmp_path)
    with pytest.raises(BadInput, match="in use by another process"):
        hold(tmp_path)
    editing = leave_to_others(tmp_path)
    assert is_edited(tmp_path)
    refuse_lone_editing(tmp_path)  # it leaves them the checkpoints
    editing.release()
    lock.release()
    refuse_lone_editing(tmp_path)
