"""Names the code and the package versions that decide the weights, and those that decide what is measured.

A run directory keeps both, so that a number can be traced to what made it.  Whole wings are hashed: a chart, a message
or a document changes neither name.  Code outside these wings and packages, a plug-in's or a model folder's, is named by
its own source.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import sysconfig
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from afteredit.store.user_cache import content_hash

ROOT = Path(__file__).resolve().parent.parent
# The files at the top of edit/ that decide facts and updates; measuring imports them too.
NOUNS = ("request", "update", "method", "constraint", "edit_set", "read_facts", "typed_facts", "usual_columns",
         "subject_place")  # fmt: skip
EDITING_PACKAGES = ("torch", "transformers", "tokenizers")
MEASURING_PACKAGES = (*EDITING_PACKAGES, "lm_eval", "datasets", "numpy", "scipy", "rouge_score")

HASHED_WINGS = ("store", "model", "edit", "evaluate")
PYTHON = Path(sysconfig.get_path("stdlib")).resolve()

Version = dict[str, Any]  # "code": a hash of files; "packages": their versions by name


@cache
def editing_version(root: Path = ROOT) -> Version:
    """Returns what decides the weights: the files of store, model and edit, and run.py."""
    return _version([*_wings(root, "store", "model", "edit"), root / "run.py"], root, EDITING_PACKAGES)


@cache
def measuring_version(view: str = "edit/constraint.py", root: Path = ROOT) -> Version:
    """Returns what decides the numbers: the files of store, model and evaluate, and those of edit that they need.

    `view` is the file, relative to the root, of the constraint whose view of the weights is measured.
    """
    needed = {root / view, *(root / "edit" / f"{name}.py" for name in NOUNS)}
    return _version([*_wings(root, "store", "model", "evaluate"), *needed], root, MEASURING_PACKAGES)


def version_name(named: Version) -> str:
    """Returns eight hex digits that stand for a version, short enough for every row of results."""
    return content_hash(named)[:8]


def differences(then: Version, now: Version) -> str:
    """Returns what changed from one version to another, in words."""
    changed = [] if then.get("code") == now["code"] else ["code"]
    before = then.get("packages", {})
    changed += [f"{name} ({before.get(name)} then, {here} now)" for name, here in now["packages"].items()
                if before.get(name) != here]  # fmt: skip
    return ", ".join(changed)


def _version(paths: list[Path], root: Path, packages: tuple[str, ...]) -> Version:
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return {"code": digest.hexdigest()[:16], "packages": {name: version(name) for name in packages}}


def _wings(root: Path, *names: str) -> list[Path]:
    """Returns every Python file of the wings.  Raises ValueError where one holds none."""
    paths: list[Path] = []
    for name in names:
        files = list((root / name).rglob("*.py"))
        if not files:
            raise ValueError(f"{root / name} holds no Python file")
        paths += files
    return paths


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


def _files(name: str) -> Iterator[tuple[str, Path]]:
    """Yields the dotted name and the file of a module, and those of the packages that it stands in; nothing for what
    has no files."""
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
    installed = "site-packages" in path.parts or "dist-packages" in path.parts
    if path.is_relative_to(ROOT):
        inside = path.relative_to(ROOT).parts
        if inside[0] in HASHED_WINGS:
            return True
        if "site-packages" not in inside:  # an environment may stand inside the checkout
            return False
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
