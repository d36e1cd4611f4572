"""What stands in the place of a file that was never fetched: a pointer of Git LFS, or a web page that shows it."""

from __future__ import annotations

import re
from pathlib import Path

from afteredit.store.errors import BadInput

STAND_INS = {
    rb"version https://git-lfs\.github\.com/": "a pointer of Git LFS and not the file itself; fetch that: git lfs pull",
    rb"\s*<(!doctype html|html)\b": "a web page and not a file of data; download the file itself (the raw one)",
}


def stand_in(first: bytes) -> str | None:
    """Returns what a file with these first bytes stands in for, and the remedy; None where it is a file of its own."""
    kinds = (kind for begin, kind in STAND_INS.items() if re.match(begin, first, re.IGNORECASE))
    return next(kinds, None)


def refuse_stand_in(path: Path) -> None:
    """Raises BadInput where a pointer or a web page stands in the file's place."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        kind = stand_in(file.read(200))
    if kind:
        raise BadInput(f"{path} is {kind}")
