"""Who measured: the code and package versions behind a row of results, and the short name that the row carries."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from afteredit.store.user_cache import content_hash

ROOT = Path(__file__).resolve().parent.parent
NOUNS = ("request", "update", "method", "constraint", "edit_set")  # at the top of edit/
PACKAGES = ("torch", "transformers", "tokenizers", "lm_eval", "datasets", "numpy", "scipy", "rouge_score")


@cache
def evaluator() -> dict[str, Any]:
    """Of this process."""
    code = files_sha256(
        [*wing("store"), *wing("model"), *wing("evaluate"), *(ROOT / "edit" / f"{n}.py" for n in NOUNS)]
    )
    return {"code": code, "packages": {name: version(name) for name in PACKAGES}}


def evaluator_name() -> str:
    return content_hash(evaluator())[:8]


def wing(name: str) -> list[Path]:
    """Every Python file of a wing.  Raises ValueError where there is none: a guard must not hash nothing."""
    paths = sorted((ROOT / name).rglob("*.py"))
    if not paths:
        raise ValueError(f"{ROOT / name} holds no Python file")
    return paths


def files_sha256(paths: list[Path]) -> str:
    """Sixteen hex digits, of paths and contents."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def differences(then: dict[str, Any], now: dict[str, Any]) -> str:
    """What changed from one {"code", "packages"} to another, in words."""
    changed = [] if then.get("code") == now["code"] else ["code"]
    before = then.get("packages", {})
    changed += [f"{name} ({before.get(name)} then, {here} now)" for name, here in now["packages"].items()
                if before.get(name) != here]  # fmt: skip
    return ", ".join(changed)
