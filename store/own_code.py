"""Packages of the user's own.  Code outside this program is imported only where the command names its package."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from pathlib import Path

from afteredit.store.errors import BadInput

_allowed: set[str] = set()  # what commands in this process have allowed


def allow(entries: Sequence[str]) -> list[str]:
    """Returns the names of the packages that a command allows: a folder with a slash (./my_code), which is read anew,
    or the name of an installed package.  Raises BadInput for what is neither."""
    names = [_load(entry) if "/" in entry else _installed(entry) for entry in entries]
    _allowed.update(names)
    return names


def is_allowed(path: str) -> bool:
    """Tells whether a text is a dotted path into a package that a command in this process has allowed."""
    parts = path.split(".")
    return len(parts) > 1 and parts[0] in _allowed and all(part.isidentifier() for part in parts)


def _installed(name: str) -> str:
    if not name.isidentifier() or name == "afteredit" or find_spec(name) is None:
        raise BadInput(f"own_code names {name}, but no package of yours is installed under that name; a folder is "
                       f"written with a slash: own_code=[./{name}]")  # fmt: skip
    return name


def _load(entry: str) -> str:
    """Puts the package that a folder is into Python's table of modules, in the place of an earlier reading of it.

    Nothing is added to Python's search path, where other files of the user could hide installed packages.
    """
    folder = Path(entry).expanduser().resolve()
    name = folder.name
    if not folder.is_dir() or not name.isidentifier():
        raise BadInput(f"own_code names {entry}, which is no folder whose name is letters, digits and _; "
                       "give the folder that holds your Python files")  # fmt: skip
    there = getattr(sys.modules.get(name), "__spec__", None) or find_spec(name)
    if there is not None and str(folder) not in map(str, there.submodule_search_locations or ()):
        raise BadInput(f"own_code names {entry}, but Python knows another {name} ({there.origin}); rename the folder, "
                       "and the _target_ that names it")  # fmt: skip
    for loaded in [module for module in sys.modules if module == name or module.startswith(f"{name}.")]:
        del sys.modules[loaded]
    importlib.invalidate_caches()
    spec = PathFinder.find_spec(name, [str(folder.parent)])
    assert spec is not None  # the folder is there, with or without an __init__.py
    spec.submodule_search_locations = [str(folder)]
    module = sys.modules[name] = module_from_spec(spec)
    if spec.loader is not None:
        spec.loader.exec_module(module)
    return name
