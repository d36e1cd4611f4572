"""Who measured: the code and package versions behind a row of results, and the short name that the row carries."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from afteredit.edit.cache import content_hash

ROOT = Path(__file__).resolve().parent.parent
# files of evaluate/ that make no number
CARRYING = ("agent", "display", "environment", "interruption", "replay", "tracker", "watch")
# files of edit/ that are run when measuring
RUNNING = ("anatomy", "fingerprint", "generate", "keys_values", "lm", "packed", "request", "whole_rows")
PACKAGES = ("torch", "transformers", "tokenizers", "lm_eval", "datasets", "numpy", "scipy", "rouge_score")


@cache
def evaluator() -> dict[str, Any]:
    """Of this process."""
    measuring = [path for path in (ROOT / "evaluate").glob("*.py") if path.stem not in CARRYING]
    code = files_sha256([*measuring, *(ROOT / "edit" / f"{name}.py" for name in RUNNING)])
    return {"code": code, "packages": {name: version(name) for name in PACKAGES}}


def evaluator_name() -> str:
    return content_hash(evaluator())[:8]


def files_sha256(paths: list[Path]) -> str:
    """Sixteen hex digits, of names and contents."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def differences(then: dict[str, Any], now: dict[str, Any]) -> str:
    """What changed from one {"code", "packages"} to another, in words."""
    changed = [] if then.get("code") == now["code"] else ["code"]
    before = then.get("packages", {})
    changed += [f"{name} ({before.get(name)} then, {here} now)" for name, here in now["packages"].items()
                if before.get(name) != here]  # fmt: skip
    return ", ".join(changed)
