"""Reads what a GGUF file says of itself: metadata, and where each tensor lies.

The file may be a stranger's: every count and length is held against the bytes that are left before anything is read, so
that a lie costs neither time nor memory.  Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn

from afteredit.store.errors import BadInput
from afteredit.store.rows.stand_ins import refuse_stand_in

VERSIONS = (2, 3)  # the first counted in 32 bits and is found no more
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
MOST = {"metadata": 2**16, "tensor": 2**16, "entry": 2**22}  # real files have hundreds, hundreds and 260,000
LONGEST_NAME, LONGEST_TEXT, LONGEST_HEADER = 2**16, 2**24, 2**26  # bytes
SPLIT_NAME = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE | re.DOTALL)


class Stored(NamedTuple):
    """A tensor as a file holds it: its shape in torch's order, its type, and its bytes in the file."""

    file: Path
    shape: tuple[int, ...]
    kind: Any  # a GGMLQuantizationType
    offset: int
    n_bytes: int


class Header(NamedTuple):
    """What a model's files say: the metadata of the first, and the tensors of all by name."""

    metadata: dict[str, Any]
    tensors: dict[str, Stored]


def parts_of(file: Path) -> list[Path]:
    """Returns the files that make up the model which `file` is part of, in order.  Raises BadInput, naming it, where
    one is missing."""
    split = SPLIT_NAME.fullmatch(file.name)
    if not split:
        return [file]
    stem, n = split[1], int(split[3])
    parts = []
    for number in range(1, n + 1):
        parts.append(file.with_name(f"{stem}-{number:05d}-of-{n:05d}.gguf"))
        if not parts[-1].is_file():
            raise BadInput(f"{file} is one of {n} parts, of which {parts[-1].name} is not beside it; fetch it")
    if file not in parts:
        raise BadInput(f"{file} says by its name that it is part {int(split[2])} of {n}")
    return parts


def read_header(parts: list[Path]) -> Header:
    """Returns what the files say.  Raises BadInput where one is no GGUF file, is cut off, or contradicts the others."""
    metadata, tensors = _read_part(parts[0])
    for number, part in enumerate(parts):
        given = (metadata, tensors) if number == 0 else _read_part(part)
        count, place = given[0].get("split.count", 1), given[0].get("split.no", 0)
        if len(parts) > 1 or count not in (0, 1):
            _check(part, count == len(parts), f"is of a model in {count} files, but {len(parts)} are given; the names "
                   "of all must end in -00001-of-0000N.gguf and so on")  # fmt: skip
            _check(part, place == number, f"is part {place} (split.no), though its name says {number}")
        if number:
            twice = tensors.keys() & given[1].keys()
            _check(part, not twice, f"holds {next(iter(twice), '')!r}, which another part holds too")
            tensors |= given[1]
    total = metadata.get("split.tensors.count", len(tensors))
    _check(parts[0], total == len(tensors), f"counts {total} tensors in all parts, which hold {len(tensors)}")
    return Header(metadata, tensors)


def _read_part(path: Path) -> tuple[dict[str, Any], dict[str, Stored]]:
    with open(path, "rb") as file:
        try:
            return _Reader(path, file).read()
        except (struct.error, UnicodeDecodeError, OverflowError) as problem:
            _refuse(path, f"is damaged ({problem})")


class _Reader:
    """Reads one file from its beginning to where its tensors' bytes start."""

    def __init__(self, path: Path, file: BinaryIO):
        self._path, self._file, self._taken = path, file, 0
        self._size = os.fstat(file.fileno()).st_size

    def read(self) -> tuple[dict[str, Any], dict[str, Stored]]:
        """Returns metadata and tensors."""
        refuse_stand_in(self._path)
        _check(self._path, self._size >= 24 and self._take(4) == b"GGUF", "is no GGUF file")
        (version,) = self._numbers("I")
        _check(self._path, version in VERSIONS, f"is GGUF of version {version}; {' and '.join(map(str, VERSIONS))} are "
               "read (in another byte order the number looks large)")  # fmt: skip
        n_tensors, n_metadata = self._numbers("QQ")
        metadata = self._named(n_metadata, "metadata", lambda: self._value(*self._numbers("I")))
        described = self._named(n_tensors, "tensor", self._tensor)
        alignment = metadata.get("general.alignment", 32)
        good = type(alignment) is int and 0 < alignment <= 2**20 and alignment & (alignment - 1) == 0
        _check(self._path, good, f"has a general.alignment of {alignment!r}, which is no power of two")
        start = -(-self._taken // alignment) * alignment
        tensors = {name: stored._replace(offset=start + stored.offset) for name, stored in described.items()}
        end = start
        for name, stored in sorted(tensors.items(), key=lambda item: item[1].offset):
            _check(self._path, stored.offset >= end, f"has {name!r} where another tensor lies")
            end = stored.offset + stored.n_bytes
            _check(self._path, end <= self._size, f"is cut off: {name!r} ends at byte {end}, the file at {self._size}")
        return metadata, tensors

    def _named(self, n: int, kind: str, read: Callable[[], Any]) -> dict[str, Any]:
        """Reads `n` names, each with what `read` returns."""
        _check(self._path, n <= MOST[kind], f"counts {n} {kind} entries; at most {MOST[kind]} are read")
        entries: dict[str, Any] = {}
        for _ in range(n):
            name = self._text(LONGEST_NAME)
            _check(self._path, name not in entries, f"names {name!r} twice")
            entries[name] = read()
        return entries

    def _value(self, kind: int) -> Any:
        if kind in SCALARS:
            return self._numbers(SCALARS[kind])[0]
        if kind == STRING:
            return self._text(LONGEST_TEXT)
        _check(self._path, kind == ARRAY, f"has a value of type {kind}, which GGUF does not know")
        inner, n = self._numbers("IQ")
        _check(self._path, n <= MOST["entry"], f"has a list of {n} entries; at most {MOST['entry']} are read")
        if inner in SCALARS:
            return list(self._numbers(SCALARS[inner] * n)) if n < 64 else self._many(SCALARS[inner], n)
        _check(self._path, inner == STRING, f"has a list of type {inner}; lists of numbers and texts are read")
        return [self._text(LONGEST_TEXT) for _ in range(n)]

    def _many(self, code: str, n: int) -> list[Any]:
        return list(struct.unpack(f"<{n}{code}", self._take(n * struct.calcsize(f"<{code}"))))

    def _tensor(self) -> Stored:
        """Reads what is said of one tensor; its offset is counted from where all tensors' bytes start."""
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

        (n_dims,) = self._numbers("I")
        _check(self._path, 1 <= n_dims <= 4, f"has a tensor of {n_dims} dimensions")
        *dims, number, offset = self._numbers("Q" * n_dims + "IQ")
        _check(self._path, number in set(GGMLQuantizationType), f"has a tensor of type {number}, which is not known")
        kind = GGMLQuantizationType(number)
        block, block_bytes = GGML_QUANT_SIZES[kind]
        _check(self._path, min(dims) > 0 and dims[0] % block == 0, f"has a tensor of {dims} as {kind.name}, whose rows "
               f"come in blocks of {block}")  # fmt: skip
        return Stored(self._path, tuple(reversed(dims)), kind, offset, math.prod(dims) // block * block_bytes)

    def _text(self, longest: int) -> str:
        (n,) = self._numbers("Q")
        _check(self._path, n <= longest, f"has a text of {n} bytes; at most {longest} are read")
        return self._take(n).decode("utf-8")

    def _numbers(self, codes: str) -> tuple[Any, ...]:
        return struct.unpack(f"<{codes}", self._take(struct.calcsize(f"<{codes}")))

    def _take(self, n: int) -> bytes:
        _check(self._path, n <= self._size - self._taken, "is cut off")
        _check(self._path, n <= LONGEST_HEADER - self._taken, f"says more of itself than {LONGEST_HEADER} bytes")
        self._taken += n
        return self._file.read(n)


def _check(path: Path, holds: bool, otherwise: str) -> None:
    if not holds:
        _refuse(path, otherwise)


def _refuse(path: Path, why: str) -> NoReturn:
    raise BadInput(f"{path} {why}; fetch it again, or give another file")
