"""Tests that what a stopped preparation finished is found again whole, or not at all."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from filelock import FileLock, Timeout

from afteredit.store.progress import kept_progress
from afteredit.store.progress.kept_progress import KeptProgress, KeptResults
from afteredit.store.user_cache import cache_folder, made_once

NAME = "things/0123.bin"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path))
    (tmp_path / "things").mkdir()
    return tmp_path / "things"


def keep(text: str) -> None:
    KeptProgress(NAME).keep(lambda path: path.write_text(text))


def found() -> str | None:
    path = KeptProgress(NAME).found()
    return path and path.read_text()


def test_the_last_piece_kept_is_found_by_the_next_start_and_is_alone(folder):
    assert found() is None
    for text in ("one", "one two", "one two"):
        keep(text)
    assert found() == "one two"
    assert len(list(folder.iterdir())) == 1
    assert KeptProgress("things/another.bin").found() is None


@pytest.mark.parametrize("damage", [b"one twp", b"one t", b""])
def test_damaged_progress_is_named_and_not_used(folder, caplog, damage):
    keep("one two")
    (file,) = folder.iterdir()
    file.write_bytes(damage)
    assert found() is None
    assert str(file) in caplog.text


def test_a_kill_while_writing_leaves_the_piece_before(folder):
    keep("one")

    def dying(path):
        path.write_text("one tw")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        KeptProgress(NAME).keep(dying)
    assert found() == "one"
    keep("one two")
    assert found() == "one two"
    made_once(NAME, lambda path: path.write_text("all"))
    KeptProgress(NAME).clear()
    assert sorted(file.name for file in folder.iterdir()) == ["0123.bin", "0123.bin.lock", "0123.bin.sha256"]


def test_writing_takes_a_small_part_of_the_time(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(kept_progress.time, "monotonic", lambda: now[0])
    progress = KeptProgress(NAME)
    due = []
    for second in range(0, 600, 10):
        now[0] = max(now[0], second)
        if progress.is_due():
            due.append(second)
            progress.keep(lambda path: now.__setitem__(0, now[0] + 20) or path.write_text("x"))
    assert due == [60, 280, 500]  # after a minute, then after ten times the twenty seconds that writing took


def test_results_that_were_kept_are_not_computed_again_and_one_process_at_a_time_adds_to_them():
    computed: list[int] = []

    def compute(value: int) -> dict[str, int]:
        computed.append(value)
        return {"value": value}

    with KeptResults("trace/some.json") as kept:
        assert kept.of("a", lambda: compute(1)) == kept.of("a", lambda: compute(2)) == {"value": 1}
        with pytest.raises(ZeroDivisionError):
            kept.of("b", lambda: compute(1 // 0))
        with pytest.raises(Timeout):
            FileLock(f"{cache_folder() / 'trace/some.json'}.lock", timeout=0).acquire()
    with KeptResults("trace/some.json") as kept:
        assert "a" in kept and "b" not in kept
        assert kept.of("b", lambda: compute(3)) == {"value": 3} and kept.of("a", lambda: compute(4)) == {"value": 1}
    assert computed == [1, 3]
    (path,) = (cache_folder() / "trace").glob("*.progress")
    path.write_text(path.read_text().replace("1", "7"))
    with KeptResults("trace/some.json") as kept:
        assert kept.of("a", lambda: compute(5)) == {"value": 5}  # a damaged file is not used


def test_whoever_waits_for_the_same_work_says_so(caplog):
    name = "trace/waited_for.json"
    with ThreadPoolExecutor() as threads, KeptResults(name), caplog.at_level("INFO"):
        other = threads.submit(lambda: KeptResults(name).__enter__().__exit__())
        until = time.monotonic() + 10
        while "waiting for another process" not in caplog.text and time.monotonic() < until:
            time.sleep(0.01)
        assert "waiting for another process" in caplog.text and not other.done()
    other.result()
