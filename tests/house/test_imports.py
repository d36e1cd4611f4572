"""Imports go downwards only.  Every import counts: lazy ones, those under TYPE_CHECKING, bench/ and run.py too."""

from __future__ import annotations

import os
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

from afteredit.tests.house.source import FILES, ROOT, WINGS, file_of, imported_files, imports, relative, top_level_names

# Who stands above whom.  Those of equal height do not import each other.
HEIGHTS = {"store": 0, "model": 1, "edit": 2, "evaluate": 3, "record": 4, "launch": 5, "analysis": 5, "commands": 6,
           "run.py": 7, "bench": 8}  # fmt: skip
HEIGHTS_IN_EDIT = {"nouns": 0, "ingredients": 1, "constraints": 1, "costs": 2, "hypernetwork": 2, "methods": 3,
                   "whole": 4}  # fmt: skip
WHOLE_OF_EDIT = ("editor.py", "preflight.py")  # the two that use all the rest


def part_of_edit(path: Path) -> str:
    """Returns a part of edit/: a subfolder, `nouns` for the files at the top, `whole` for those that use all parts."""
    inside = path.relative_to(ROOT / "edit")
    return inside.parts[0] if len(inside.parts) > 1 else "whole" if inside.name in WHOLE_OF_EDIT else "nouns"


def wrong_way(heights: dict[str, int], place, files: list[Path]) -> list[str]:
    """Returns every import that goes upwards, or sideways to a place of equal height."""
    arrows = [(path, imported) for path in files for imported in imported_files(path) if imported in files]
    return [
        f"{relative(path)} imports {relative(imported)}"
        for path, imported in arrows
        if place(path) != place(imported) and heights[place(imported)] >= heights[place(path)]
    ]


def test_a_wing_imports_only_what_stands_below_it():
    assert not wrong_way(HEIGHTS, lambda path: path.relative_to(ROOT).parts[0], list(FILES))


def test_a_part_of_edit_imports_only_what_stands_below_it():
    files = [path for path in FILES if path.is_relative_to(ROOT / "edit")]
    assert {part_of_edit(path) for path in files} == set(HEIGHTS_IN_EDIT)
    assert not wrong_way(HEIGHTS_IN_EDIT, part_of_edit, files)


def test_no_import_leads_back_to_its_own_file():
    """Raises CycleError, which names the files, where two files import each other, or more of them in a circle."""
    TopologicalSorter({relative(path): {relative(file) for file in imported_files(path)} for path in FILES}).prepare()


def test_hydra_is_imported_in_launch_alone():
    wings = {(path.relative_to(ROOT).parts[0], relative(path)) for path in FILES for module, _ in imports(path)
             if module.split(".")[0] in ("hydra", "omegaconf")}  # fmt: skip
    assert {wing for wing, _ in wings} == {"launch"}, sorted(wings)


def test_every_import_of_ours_is_absolute_and_names_something_that_is_there():
    """A lazy import that names nothing would fail only once it is reached.  The scripts in docs/ count too."""
    wrong = []
    for path in (*FILES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "docs").rglob("*.py")):
        for module, name in imports(path):
            if module.startswith(".") or module.split(".")[0] in {*WINGS, "run", "tests"} - {"evaluate"}:
                wrong.append(f"{relative(path)} imports {module}: write afteredit.{module.lstrip('.')}")
            if module.split(".")[0] != "afteredit":
                continue
            file = file_of(module, name)
            if file is None:
                wrong.append(f"{relative(path)} imports {module} {name}: there is no such file")
            elif name and file == file_of(module) and name not in top_level_names(file):
                wrong.append(f"{relative(path)} imports {name}, which {relative(file)} does not hold")
    assert not wrong


def modules_after(code: str) -> set[str]:
    """Returns the names of all modules that a fresh Python holds after it ran `code`."""
    command = [sys.executable, "-c", f"{code}\nimport sys\nprint('modules:', *sys.modules)"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("modules:")[2].split())


def test_analysis_brings_no_torch():
    files = [relative(path) for path in FILES if path.is_relative_to(ROOT / "analysis")]
    modules = [file.removesuffix(".py").replace("/", ".") for file in files]
    loaded = modules_after("\n".join(f"import afteredit.{module}" for module in modules))
    assert "afteredit.analysis.report" in loaded and not loaded & {"torch", "transformers", "hydra"}


def test_a_config_is_checked_without_torch():
    groups = {
        group: [path.stem for path in (ROOT / "conf" / group).glob("*.yaml")] for group in ("method", "constraint")
    }
    calls = [f"compose(['{group}={name}', 'task=nli'])" for group, names in groups.items() for name in names]
    loaded = modules_after("from afteredit.launch.command_line import compose\n" + "\n".join(calls))
    assert "afteredit.edit.methods.rome" in loaded and not loaded & {"torch", "transformers"}
