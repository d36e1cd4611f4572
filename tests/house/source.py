"""Reads the program's own source: which files there are, and what each imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WINGS = ("store", "model", "edit", "evaluate", "record", "analysis", "launch", "commands", "bench")
FILES = (ROOT / "run.py", *sorted(path for wing in WINGS for path in (ROOT / wing).rglob("*.py")))  # of the program


def relative(path: Path) -> str:
    """Returns a file's path from the repository's root, as a message shows it."""
    return path.relative_to(ROOT).as_posix()


@cache
def syntax(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> tuple[tuple[str, str], ...]:
    """Returns (module, name) of every import of a file, also of those inside functions and under TYPE_CHECKING.
    `name` is empty for `import module`."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[tuple[str, str]]:
    for node in ast.walk(syntax(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (("." * node.level + (node.module or ""), alias.name) for alias in node.names)


def file_of(module: str, name: str = "") -> Path | None:
    """Returns the file that holds one of our modules; None for a foreign module and for a folder."""
    if module != "afteredit" and not module.startswith("afteredit."):
        return None
    for dotted in (f"{module}.{name}" if name else module, module):
        path = ROOT.joinpath(*dotted.split(".")[1:]).with_suffix(".py")
        if dotted != "afteredit" and path.is_file():
            return path
    return None


def imported_files(path: Path) -> set[Path]:
    """Returns those of our files that a file imports."""
    return {file for module, name in imports(path) if (file := file_of(module, name)) is not None}


def top_level_names(path: Path) -> set[str]:
    """Returns what a module defines or imports outside its functions and classes."""
    names: set[str] = set()
    statements: list[ast.stmt] = list(syntax(path).body)
    while statements:
        node = statements.pop()
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        else:
            names |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
            statements += [n for n in ast.iter_child_nodes(node) if isinstance(n, ast.stmt)]
    return names
