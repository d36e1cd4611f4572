"""The cache: one process makes, all use."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save_file

from afteredit.store import user_cache
from afteredit.store.errors import BadInput
from afteredit.store.user_cache import cache_folder, content_hash, made_once

MAKER = """
import pathlib, sys, time
from afteredit.store.user_cache import made_once
log, started = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
def make(path):
    with open(log, "a") as file:
        file.write("made\\n")
    time.sleep(1.0)
    path.write_text("content")
started.touch()
while len(list(started.parent.glob("started*"))) < 3:
    time.sleep(0.01)
print(made_once("deep/thing.txt", make).read_text())
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_without_a_home_directory_the_key_that_names_a_place_is_told(cache, monkeypatch):
    for name in ("AFTEREDIT_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)  # a user without an entry, as in a container
    with pytest.raises(BadInput, match="no home directory .*set AFTEREDIT_CACHE to a folder"):
        cache_folder()
    monkeypatch.setenv("AFTEREDIT_CACHE", str(cache))
    assert cache_folder() == cache


def test_it_is_made_once_and_then_found(cache):
    made = []

    def make(path: Path) -> None:
        made.append(path)
        path.write_text("content")

    assert made_once("deep/thing.txt", make) == made_once("deep/thing.txt", make) == cache / "deep" / "thing.txt"
    assert len(made) == 1
    assert (cache / "deep" / "thing.txt").read_text() == "content"
    assert not made[0].exists()


def test_what_was_made_is_told_in_one_line_with_its_seconds_and_only_once(cache, caplog, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(user_cache.time, "monotonic", lambda: now[0])
    caplog.set_level("INFO", "afteredit")

    def make(path: Path) -> None:
        path.write_text("content")
        now[0] += 40.2

    for _ in range(2):
        made_once("x/0123abcd.txt", make, "computing second moments")
    assert caplog.messages == ["computing second moments (40 s, kept for later runs)"]


def test_a_folder_can_be_made_too(cache):
    path = made_once("models/tiny", lambda folder: folder.mkdir())
    assert path.is_dir()


def test_what_is_made_can_be_read_by_those_whom_the_umask_lets(cache):
    """safetensors makes files for the user alone."""
    umask = os.umask(0o027)
    try:
        made = made_once("x.safetensors", lambda path: save_file({"a": np.zeros(2)}, path))
    finally:
        os.umask(umask)
    assert stat.S_IMODE(made.stat().st_mode) == 0o640


def test_what_was_half_made_is_made_again(cache):
    def fail(path: Path) -> None:
        path.write_text("half")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        made_once("thing.txt", fail)
    assert not (cache / "thing.txt").exists()
    assert made_once("thing.txt", lambda path: path.write_text("whole")).read_text() == "whole"


@pytest.mark.parametrize("harm", ["altered", "cut", "without_sum"])
def test_a_file_that_is_not_as_it_was_made_is_named_and_made_anew(cache, harm, caplog):
    made_once("thing.txt", lambda path: path.write_text("content"))
    if harm == "without_sum":
        (cache / "thing.txt.sha256").unlink()
    else:
        (cache / "thing.txt").write_text("c0ntent" if harm == "altered" else "cont")
    with caplog.at_level("WARNING"):
        assert made_once("thing.txt", lambda path: path.write_text("again")).read_text() == "again"
    assert "thing.txt does not match its checksum" in caplog.text
    assert made_once("thing.txt", pytest.fail).read_text() == "again"


@pytest.mark.parametrize("harm", ["altered", "lost", "added", "without_sum"])
def test_a_folder_that_is_not_as_it_was_made_is_named_and_made_anew(cache, harm, caplog):
    def make(folder: Path) -> None:
        (folder / "deep").mkdir(parents=True)
        for name in ("config.json", "deep/weights"):
            (folder / name).write_text(f"{name}: 1")

    path = made_once("models/tiny", make)
    weights = path / "deep" / "weights"
    if harm == "without_sum":
        (cache / "models" / "tiny.sha256").unlink()
    elif harm == "lost":
        weights.unlink()
    else:
        (weights if harm == "altered" else path / "tokenizer.json").write_text("deep/weights: 2")
    with caplog.at_level("WARNING"):
        assert made_once("models/tiny", make) == path
    assert "tiny does not match its checksum" in caplog.text
    assert weights.read_text() == "deep/weights: 1" and not (path / "tokenizer.json").exists()
    assert made_once("models/tiny", pytest.fail) == path


def test_what_killed_processes_left_is_cleared_away(cache):
    (cache / "models").mkdir(parents=True)
    (cache / "models" / "tiny.123.part").mkdir()
    (cache / "models" / "tiny.124.part").write_text("half")
    made_once("models/tiny", lambda folder: folder.mkdir())
    assert not list((cache / "models").glob("*.part"))


def test_a_disk_that_is_full_is_said_in_words_and_leaves_nothing_half_made(cache):
    def fill(path: Path) -> None:
        path.write_text("half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    with pytest.raises(BadInput, match=r"thing.txt cannot be written .*No space left.*AFTEREDIT_CACHE"):
        made_once("thing.txt", fill)
    assert [path.name for path in cache.iterdir()] == ["thing.txt.lock"]


def test_of_processes_that_ask_at_once_one_makes_and_the_others_use_it(tmp_path):
    command = [sys.executable, "-c", MAKER, str(tmp_path / "log")]
    processes = [
        subprocess.Popen([*command, str(tmp_path / f"started{i}")], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for i in range(3)
    ]
    answers = [process.communicate(timeout=60) for process in processes]
    assert [out.strip() for out, _ in answers] == [b"content"] * 3, answers
    assert (tmp_path / "log").read_text() == "made\n"


def test_the_folder_is_the_users_choice_then_the_systems(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("AFTEREDIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "afteredit"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "afteredit"


def test_the_hash_names_the_content_not_the_order_of_its_keys():
    assert content_hash({"a": 1, "b": [2]}) == content_hash({"b": [2], "a": 1})
    assert content_hash({"a": 1}) != content_hash({"a": "1"})
    assert len(content_hash("ü")) == 16
