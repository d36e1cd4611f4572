"""What the environment of a command says neither ends it in a traceback nor is given away."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from afteredit.launch.command_line import compose
from afteredit.run import main
from afteredit.store.errors import BadInput, refuse_secrets, without_secrets
from afteredit.store.user_cache import made_once

ROOT = Path(__file__).resolve().parents[2]
SECRET = "https://bob:hunter2@host/m"


def test_pictures_are_drawn_whatever_backend_the_environment_names():
    draw = "from matplotlib import get_backend, pyplot; pyplot.figure(); print(get_backend().lower())"
    run = f"from afteredit.run import main\ndef draw(x):\n  {draw}\nassert main(['task=none'], draw) == 0"
    report = f"from afteredit.analysis.__main__ import main\nassert main(['report', '/nowhere']) == 2\n{draw}"
    for code, backend in ((run, "module://matplotlib_inline.backend_inline"), (report, "nope")):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120,
                              env=os.environ | {"MPLBACKEND": backend})  # fmt: skip
        assert (done.returncode, done.stdout.split()[-1:]) == (0, ["agg"]), done.stderr


def test_without_docstrings_the_command_says_what_is_wrong():
    done = subprocess.run([sys.executable, "-OO", str(ROOT / "run.py")], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.startswith("error: PYTHONOPTIMIZE=2")
    assert "unset it" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which no folder can be made")
def test_a_cache_that_cannot_be_made_is_refused_with_the_variable(monkeypatch):
    monkeypatch.setenv("AFTEREDIT_CACHE", "/proc/x")
    with pytest.raises(BadInput, match=r"/proc/x .*set AFTEREDIT_CACHE to a folder"):
        made_once("kind/file", lambda path: path.touch())


def test_an_error_of_what_is_made_is_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path))

    def make(path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error", str(path))

    with pytest.raises(OSError, match="Input/output error"):  # a full disk: tests/store/test_full_disks.py
        made_once("kind/file", make)


@pytest.mark.parametrize(
    "overrides",
    [
        [f"model.source='{SECRET}'", "model=hf"],
        [f"data='{SECRET}'"],
        [f"edits.file='{SECRET}'"],
        [f"+edits.hub='{SECRET}'"],
        [f"tracker.tags=['{SECRET}']"],
        ["task=[nli]", f"task.nli.hub.path='{SECRET}'"],
        [f"+nope='{SECRET}'"],
        [f"n_edits='{SECRET}'"],
        [f"model='{SECRET}'"],
        [f"data={SECRET}?a=(b"],
        [f"data={SECRET},b"],
        ["-m", f"data='{SECRET}','{SECRET}/2'"],
    ],
    ids=lambda overrides: overrides[0][:20],
)
def test_no_password_of_an_address_is_printed_or_kept(overrides, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept: list[object] = []
    assert main([*overrides, f"runs={tmp_path}/runs"], kept.append) == 2
    told = capsys.readouterr()
    assert "hunter2" not in told.out + told.err and "bob" not in told.out + told.err
    assert "host/m" in told.err and not kept


@pytest.mark.parametrize("query", [
    "access_token=hunter2", "v=1&token=hunter2", "api_key=hunter2&v=1", "sig=hunter2", "X-Amz-Signature=hunter2",
    "X-Amz-Credential=hunter2&X-Goog-Date=hunter2", "AWSAccessKeyId=hunter2", "Key-Pair-Id=hunter2", "Password=hunter2",
])  # fmt: skip
def test_no_key_in_the_query_of_an_address_is_printed_or_kept(query, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept: list[object] = []
    address = f"https://host/m/facts.json?{query}"
    assert main(["data=hub", f"edits.hub={address}", f"runs={tmp_path}/runs"], kept.append) == 2
    told = capsys.readouterr()
    assert "hunter2" not in told.out + told.err and "host/m" in told.err and not kept
    with pytest.raises(BadInput, match="key in its query"):
        compose(["data=hub", f"edits.hub='{address}'"])
    assert without_secrets(f"{address} x") == f"{address.replace('hunter2', '')} x"


def test_the_address_of_the_tracking_server_is_refused_with_a_password(monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", SECRET)
    with pytest.raises(BadInput, match="WANDB_BASE_URL is 'https://host/m' with a user or a password"):
        compose([])
    compose(["tracker=none"])


@pytest.mark.parametrize(
    "text",
    [
        "https://host/a@b",
        "org/model@v1",
        "bob@host",
        "hub:a:b",
        "https://host?mail=a@b",
        "https://host/f?version=2&download=true",
        "token=abc",
        "https://host/design=1",
    ],
)
def test_other_texts_stay(text):
    assert without_secrets(json.dumps(text)) == json.dumps(text)
    refuse_secrets({"a": [text]})
