"""Names code that neither this program's versions nor a package's version names: a plug-in's, or a model folder's."""

from __future__ import annotations

import ast
import hashlib
import inspect
import sysconfig
from collections.abc import Collection, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from afteredit.store.code_version import MEASURING_PACKAGES, ROOT

HASHED_WINGS = ("store", "model", "edit", "evaluate")  # by code_version.py
FROM_MODEL_FOLDERS = "transformers_modules"  # where transformers puts the code of model folders, under its own names
PYTHON = Path(sysconfig.get_path("stdlib")).resolve()
Module = tuple[str, Path]  # dotted name and file


def class_name(cls: type) -> str:
    """Returns the full name of a class, which does not depend on the folder that it was loaded from."""
    in_a_folder = cls.__module__.startswith(FROM_MODEL_FOLDERS)
    return cls.__qualname__ if in_a_folder else f"{cls.__module__}.{cls.__qualname__}"


def plugin_code(*objects: Any) -> list[str]:
    """Returns the hashes of the files that define the classes and functions in `objects` and their base classes, and of
    all that these files import, but for Python's own files, the hashed wings' and other installed packages'.

    Lists and mappings in `objects` are looked through.  Nothing is imported.
    """
    things = _classes_and_functions(objects)
    packages = {thing.__module__.partition(".")[0] for thing in things}.difference(MEASURING_PACKAGES)
    left = [base.__module__ for thing in things for base in getattr(thing, "__mro__", [thing])]
    hashes: dict[Path, str] = {}
    while left:
        for name, path in _files(left.pop()):
            if path not in hashes and not _named_elsewhere(name, path, packages):
                source = path.read_bytes()
                hashes[path] = hashlib.sha256(source).hexdigest()[:16]
                left += _imports(ast.parse(source), name if path.stem == "__init__" else name.rpartition(".")[0])
    return sorted(hashes.values())


def _classes_and_functions(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [thing for inner in value for thing in _classes_and_functions(inner)]
    return [value] if inspect.isclass(value) or inspect.isfunction(value) else []


def _files(name: str) -> Iterator[Module]:
    """Yields the file of a module, and those of the packages that it stands in; nothing for what has no files."""
    top, *parts = name.split(".")
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        return
    if spec is None:
        return
    if str(spec.origin).endswith(".py"):
        yield top, Path(str(spec.origin)).resolve()
    folders = [Path(folder).resolve() for folder in spec.submodule_search_locations or []]
    for depth, part in enumerate(parts, start=2):
        dotted = ".".join(name.split(".")[:depth])
        candidates = [file for folder in folders for file in (folder / f"{part}.py", folder / part / "__init__.py")]
        yield from ((dotted, file) for file in candidates if file.is_file())
        folders = [folder / part for folder in folders]


def _named_elsewhere(name: str, path: Path, packages: Collection[str]) -> bool:
    """Tells whether a version names the file already.  `packages` are those of the plug-ins."""
    if path.is_relative_to(ROOT):
        return path.relative_to(ROOT).parts[0] in HASHED_WINGS
    installed = "site-packages" in path.parts or "dist-packages" in path.parts
    in_python = path.is_relative_to(PYTHON)
    return name.partition(".")[0] not in packages if installed else in_python


def _imports(tree: ast.Module, package: str) -> list[str]:
    """Returns the dotted names that a source imports: of modules, and of what may be modules inside them."""
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            names += [f"{base}.{alias.name}" for alias in node.names]
    return names
