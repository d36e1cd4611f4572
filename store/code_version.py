"""Names the code and the package versions that decide the weights, and those that decide what is measured.

A run directory keeps both, so that a number can be traced to what made it.  Whole wings are hashed: a chart, a message
or a document changes neither name.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from afteredit.store.user_cache import content_hash

ROOT = Path(__file__).resolve().parent.parent
# The files at the top of edit/ that decide facts and updates; measuring imports them too.
NOUNS = ("request", "update", "method", "constraint", "edit_set", "read_facts", "subject_place")
EDITING_PACKAGES = ("torch", "transformers", "tokenizers")
MEASURING_PACKAGES = (*EDITING_PACKAGES, "lm_eval", "datasets", "numpy", "scipy", "rouge_score")

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
