"""Who may import whom, read off the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("edit", "evaluate", "analysis")
OWN = sorted([*ROOT.glob("*.py"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))])
TOP = ("afteredit.run", "afteredit.launch.command_line", "hydra")
FORBIDDEN = {
    "edit": ("afteredit.evaluate", "afteredit.analysis", *TOP, "afteredit.launch.compose", "omegaconf"),
    "evaluate": ("afteredit.analysis", *TOP),
    "analysis": ("afteredit.edit", *TOP, "torch", "transformers"),
}


def imported(path: Path) -> Iterator[str]:
    """Dotted names, `from a import b` as a.b; imports inside functions and under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)


def within(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_go_one_way(folder):
    wrong = [(path.name, name) for path in (ROOT / folder).rglob("*.py") for name in imported(path)
             for module in FORBIDDEN[folder] if within(name, module)]  # fmt: skip
    assert not wrong


def test_only_the_top_knows_hydra():
    knows = {path.name for path in OWN for name in imported(path) if within(name, "hydra")}
    assert knows == {"run.py", "command_line.py"}


def test_our_modules_are_imported_under_afteredit_only():
    everywhere = [*OWN, *(ROOT / "tests").rglob("*.py")]
    wrong = [(path.name, name) for path in everywhere for name in imported(path)
             if name.startswith(".") or name.split(".")[0] in ("edit", "analysis")
             or (name.split(".")[0] == "evaluate" and (ROOT / "evaluate" / f"{name.split('.')[-1]}.py").exists())
             or any(within(name, f"evaluate.{p.stem}") for p in (ROOT / "evaluate").glob("*.py"))]  # fmt: skip
    assert not wrong


def test_no_folder_is_a_package_that_would_hide_hugging_faces_evaluate():
    folders = [ROOT, *(ROOT / folder for folder in FOLDERS), ROOT / "tests"]
    assert not [path for folder in folders[1:] for path in folder.rglob("__init__.py")]
    assert not (ROOT / "__init__.py").exists()
