"""The user's cache: constants that many runs share, named by what decides them, made by one process at a time."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from afteredit.edit.request import BadInput

log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """$AFTEREDIT_CACHE, else `afteredit` in $XDG_CACHE_HOME or ~/.cache."""
    chosen = os.environ.get("AFTEREDIT_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "afteredit"


def content_hash(decides: Any) -> str:
    """Sixteen hex digits of the SHA-256 of a JSON-able description."""
    text = json.dumps(decides, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """`cache_folder()/name`, made by `make(temporary path)` when it is not there yet.

    One process makes it, others wait for the lock and use it; what was half made by a killed process is made again.
    Raises BadInput where the cache is no folder that can be written.
    """
    from filelock import FileLock

    path = cache_folder() / name
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, PermissionError) as problem:
        raise BadInput(f"the cache cannot be made in {cache_folder()} ({problem.strerror}: {problem.filename}); set "
                       "AFTEREDIT_CACHE to a folder that can be written") from None  # fmt: skip
    with FileLock(f"{path}.lock"):
        if not path.exists():
            temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
            log.info("making %s (once; later runs find it there)", path)
            make(temporary)
            os.replace(temporary, path)
    return path
