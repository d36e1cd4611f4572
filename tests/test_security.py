"""No secret reaches the disk, and nothing that is read can run code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from afteredit.run import main

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("edit", "evaluate", "analysis")
SOURCES = [ROOT / "run.py", ROOT / "config.py", *(path for name in FOLDERS for path in (ROOT / name).rglob("*.py"))]
UNSAFE = re.compile(r"torch\.(load|save)\b|\bread_pickle\b|allow_pickle|weights_only=False|yaml\.(unsafe_)?load\b")
KEY = "5ecre7" * 6 + "5ec7"  # of the length of a W&B key
PLANTED = "planted-in-the-environment-and-nowhere-else"


def test_a_run_directory_holds_neither_the_key_nor_the_environment(tiny_folder, tmp_path, monkeypatch):
    assert len(KEY) == 40
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("AFTEREDIT_PLANTED", PLANTED)
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path / "cache"))
    rome = ("method.second_moment=identity", "method.layer=1", "method.value_steps=2", "method.contexts_short=0",
            "method.contexts_long=0")  # fmt: skip
    assert main(["model=hf", f"model.source={tiny_folder}", *rome, "n_edits=1", "eval_every=1", "task=none",
                 "held_out_tokens=64", "device=cpu", "tracker.mode=offline", f"runs={tmp_path}/runs"]) == 0  # fmt: skip
    files = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files) and any(path.name == "environment.json" for path in files)
    for path in files:
        content = path.read_bytes()
        assert KEY.encode() not in content and PLANTED.encode() not in content, path
        assert b"AFTEREDIT_PLANTED" not in content, path


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_unpickles(path):
    names = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    text = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            assert not names & {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in names
    assert not UNSAFE.search(text)
