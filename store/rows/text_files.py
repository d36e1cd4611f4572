"""Reads a user's text file: plain or compressed, with or without a byte-order mark, whatever its line ends."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import stat
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from afteredit.store.errors import BadInput
from afteredit.store.rows.stand_ins import stand_in

COMPRESSED: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
SAVED_SET = "a saved data set: write it out, datasets.load_from_disk('<folder>').to_parquet('<file>.parquet')"
ARROW = (
    "an Arrow file (write it out, pandas.read_feather('<file>').to_parquet('<file>.parquet'); of a data set that "
    "was saved, datasets.load_from_disk('<folder>').to_parquet('<file>.parquet'))"
)
NO_TEXT = {b"PK\x03\x04": "a zip archive, as Excel's .xlsx is (save a table as CSV)",
           b"\xd0\xcf\x11\xe0": "a file of an old Excel or Word (save a table as CSV)",
           b"\x28\xb5\x2f\xfd": "a zstd file", b"PAR1": "a Parquet file", b"\x89HDF": "an HDF5 file",
           b"\xff\xff\xff\xff": ARROW, b"ARROW1": ARROW, b"SQLite": "an SQLite file",
           b"FEA1": "an old Feather file (save it as Parquet)", b"ORC": "an ORC file (save it as Parquet)",
           **dict.fromkeys((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"), "a pickle of Python's, which may run "
                           "code and is never read (write it out: frame.to_parquet('<file>.parquet'))")}  # fmt: skip
NO_FILE = "no such file"
MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
         codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}  # fmt: skip


def why_no_file(path: Path) -> str | None:
    """Returns why there is no file to read at `path`; None where there is one, or a link to one."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "a link to a file that is not there" if path.is_symlink() else NO_FILE
    except (OSError, ValueError) as problem:
        return f"no file that can be read ({problem})"
    if stat.S_ISREG(mode):
        return None
    kinds = {
        stat.S_IFDIR: f"a folder{saved_set_in(path)}",
        stat.S_IFIFO: "a pipe, which can be read only once",
        stat.S_IFCHR: "a device",
    }
    return f"no file but {kinds.get(stat.S_IFMT(mode), 'something else')}"


def saved_set_in(folder: Path) -> str:
    """Returns words about a data set that `datasets` saved in a folder; nothing where there is none."""
    saved = any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))
    return f" (it holds {SAVED_SET})" if saved else ""


def read_lines(path: Path, name: str, allowed: str = "a text file") -> Iterator[str]:
    """Yields the lines of a text file with a line feed at their ends; byte-order marks are left out, also those that
    begin a line, as in files that were put together or marked twice.

    `name` is what messages call the file, `allowed` what they ask for.  Raises BadInput where it cannot be read.
    """
    reason = why_no_file(path)
    if reason:
        raise BadInput(f"{name}: {reason}; give {allowed}")
    try:
        with open(path, "rb") as file:
            opener = _by_first_bytes(COMPRESSED, file.read(8), open)
        with opener(path, "rb") as file:
            first = file.read(512)
        kind = stand_in(first)
        if kind:
            raise BadInput(f"{name}: is {kind}")
        kind = "a tar archive (take the file out of it: tar -xf)" if first[257:262] == b"ustar" else None
        kind = kind or _by_first_bytes(NO_TEXT, first, None)
        if kind:
            raise BadInput(f"{name}: is {kind}; allowed: a text file, plain or compressed as .gz, .bz2 or .xz")
        if _is_wide(first[:8]):
            raise BadInput(f"{name}: is UTF-16 or UTF-32 text without a byte-order mark; save it as UTF-8")
        with opener(path, "rt", encoding=_by_first_bytes(MARKS, first, "utf-8")) as lines:
            for line in lines:
                yield line.lstrip("\ufeff")
    except UnicodeError as problem:
        raise BadInput(f"{name}: cannot be read as UTF-8 text: {problem}; save it as UTF-8") from None
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as problem:
        raise BadInput(f"{name}: cannot be read: {problem}") from None


def read_text(path: Path, name: str, allowed: str = "a text file") -> str:
    """Returns the whole text of a file, read as by `read_lines`."""
    return "".join(read_lines(path, name, allowed))


def _is_wide(first: bytes) -> bool:
    """Tells whether every other byte is zero, as where two or four bytes write one Latin letter."""
    return len(first) > 3 and any(first) and not (any(first[::2]) and any(first[1::2]))


def _by_first_bytes(kinds: dict[bytes, Any], first: bytes, otherwise: Any) -> Any:
    return next((kind for mark, kind in kinds.items() if first.startswith(mark)), otherwise)
