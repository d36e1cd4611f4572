"""Reads JSON that may come from anywhere: what is no JSON, too deep or no text is one kind of error."""

from __future__ import annotations

import json
import re
from typing import Any

HALF = re.compile("[\ud800-\udfff]")  # of a pair of UTF-16; alone it is no character, and no file can hold it


def read_json(content: bytes | str) -> Any:
    """Returns the value.  Raises ValueError, also for deep nesting and for a text that holds half a character."""
    try:
        value = json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    escape = b"\\u" if isinstance(content, bytes) else "\\u"
    if escape in content:  # type: ignore[operator]
        refuse_half(json.dumps(value, ensure_ascii=False))
    return value


def refuse_half(text: str) -> None:
    """Raises ValueError for a text that holds half of a surrogate pair, which UTF-8 cannot hold."""
    half = HALF.search(text)
    if half:
        raise ValueError(f"it holds {ascii(half[0])[1:-1]}, half of a surrogate pair, which is no character")


def printable(text: str) -> str:
    """Returns the text as UTF-8 can hold it: half of a surrogate pair, as in a file name that is not UTF-8, spelled
    out."""
    return text.encode(errors="backslashreplace").decode()
