"""Tests that what a stopped preparation finished is found again whole, or not at all."""

import pytest

from afteredit.store.progress import kept_progress
from afteredit.store.progress.kept_progress import KeptProgress
from afteredit.store.user_cache import made_once

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
