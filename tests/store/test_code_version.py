"""What names the measuring code holds all of it."""

from __future__ import annotations

import ast
from pathlib import Path

from afteredit.store import code_version as evaluator
from afteredit.store.code_version import CARRYING, ROOT, RUNNING

KEEPING = {"cache", "disk", "rows", "update"}  # imported too: files that are read and kept, and what is applied
APART = {*CARRYING, "past", "results", "run_directory"}  # files of evaluate/ that run a run, and no model


def own_imports(path: Path) -> set[tuple[str, str]]:
    """(folder, file) of every import from edit/ and evaluate/, those inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        parts = [name.split(".") for name in names]
        found |= {(p[1], p[2]) for p in parts if p[0] == "afteredit" and p[1] in ("edit", "evaluate") and len(p) > 2}
    return found


def test_every_file_of_edit_that_measuring_runs_is_hashed():
    seen: set[tuple[str, str]] = set()
    left = {("evaluate", path.stem) for path in (ROOT / "evaluate").glob("*.py") if path.stem not in APART}
    while left:
        folder, name = left.pop()
        seen.add((folder, name))
        left |= own_imports(ROOT / folder / f"{name}.py") - seen
    assert {name for folder, name in seen if folder == "edit"} == {*RUNNING, *KEEPING}


def test_a_change_to_any_of_them_changes_the_name(tmp_path, monkeypatch):
    for folder, names in (("edit", RUNNING), ("evaluate", ("likelihood", *CARRYING))):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / f"{name}.py").write_text(name)
    monkeypatch.setattr(evaluator, "ROOT", tmp_path)

    def code() -> str:
        evaluator.evaluator.cache_clear()
        return evaluator.evaluator()["code"]

    seen = [code()]
    for name in RUNNING:
        (tmp_path / "edit" / f"{name}.py").write_text(f"{name}, another")
        seen.append(code())
    (tmp_path / "evaluate" / "likelihood.py").write_text("another")
    seen.append(code())
    assert len(set(seen)) == len(seen)
    (tmp_path / "evaluate" / f"{CARRYING[0]}.py").write_text("another")
    assert code() == seen[-1]
    evaluator.evaluator.cache_clear()
