"""The names of the code hold all of what decides the weights, or the numbers, and nothing else."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import pytest

from afteredit.edit.constraint import Unconstrained, view_file
from afteredit.edit.constraints.prune import Prune
from afteredit.edit.constraints.rect import Rect
from afteredit.store.code_version import NOUNS, ROOT, differences, editing_version, measuring_version, version_name

WINGS = ("store", "model", "edit", "evaluate", "record", "analysis", "launch", "commands")
PRUNE = "edit/constraints/prune.py"


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A copy of the program."""
    root = tmp_path_factory.mktemp("tree")
    for wing in WINGS:
        shutil.copytree(ROOT / wing, root / wing, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "run.py", root)
    return root


def codes(root: Path) -> dict[str, str]:
    """The hashes of the code as the files are now."""
    editing_version.cache_clear()
    measuring_version.cache_clear()
    versions = {"weights": editing_version(root), "numbers": measuring_version(root=root),
                "numbers seen through prune": measuring_version(PRUNE, root)}  # fmt: skip
    return {name: version["code"] for name, version in versions.items()}


NUMBERS = {"numbers", "numbers seen through prune"}
MOVES = {
    "store/user_cache.py": {"weights"} | NUMBERS,
    "model/anatomy.py": {"weights"} | NUMBERS,
    "model/loading/fingerprint.py": {"weights"} | NUMBERS,
    "edit/request.py": {"weights"} | NUMBERS,
    "edit/methods/rome.py": {"weights"},
    "edit/constraints/rect.py": {"weights"},
    PRUNE: {"weights", "numbers seen through prune"},
    "evaluate/retention.py": NUMBERS,
    "evaluate/inference/batches.py": NUMBERS,
    "run.py": {"weights"},
    "record/tracking/tracker.py": set(),
    "analysis/report.py": set(),
    "launch/endings.py": set(),
    "commands/replay.py": set(),
}


@pytest.mark.parametrize("file", MOVES)
def test_a_changed_file_changes_the_names_of_what_it_decides_and_no_other(file, tree):
    before, original = codes(tree), (tree / file).read_bytes()
    (tree / file).write_bytes(original + b"\n# changed\n")
    after = codes(tree)
    (tree / file).write_bytes(original)
    assert {name for name in before if before[name] != after[name]} == MOVES[file]
    assert codes(tree) == before


def test_a_new_file_in_a_folder_of_a_wing_is_held_too(tree):
    before = codes(tree)
    (tree / "model" / "deeper").mkdir()
    (tree / "model" / "deeper" / "new.py").write_text("")
    assert all(before[name] != code for name, code in codes(tree).items())
    shutil.rmtree(tree / "model" / "deeper")


def test_a_wing_without_files_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no Python file"):
        editing_version(tmp_path)


def edit_imports(path: Path) -> set[str]:
    """The modules of edit/ that a file imports, inside functions too: `request`, `constraints.prune`."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
    return {name.removeprefix("afteredit.edit.") for name in names if name.startswith("afteredit.edit.")}


def test_measuring_needs_no_file_of_edit_that_its_name_does_not_hold():
    views = {path for path in (ROOT / "edit" / "constraints").glob("*.py") if "def view(" in path.read_text("utf-8")}
    assert views
    left = views | {path for wing in ("store", "model", "evaluate") for path in (ROOT / wing).rglob("*.py")}
    reached: set[Path] = set()
    while left:
        path = left.pop()
        reached.add(path)
        assert edit_imports(path) <= set(NOUNS), path
        left |= {ROOT / "edit" / f"{name}.py" for name in edit_imports(path)} - reached


def test_the_file_of_a_view_is_that_of_the_constraint_that_defines_it():
    assert view_file(Prune()) == PRUNE
    assert view_file(Rect()) == view_file(Unconstrained()) == "edit/constraint.py"


def test_versions_have_short_names_and_their_differences_are_said():
    now = {"code": "b", "packages": {"torch": "2.1", "numpy": "2.0"}}
    then = {"code": "a", "packages": {"torch": "2.0", "numpy": "2.0"}}
    assert differences(then, now) == "code, torch (2.0 then, 2.1 now)"
    assert differences(now, now) == "" and differences({}, now).startswith("code, torch (None then")
    assert len(version_name(now)) == 8 and version_name(now) != version_name(then)
