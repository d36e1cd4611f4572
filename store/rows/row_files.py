"""Rows as they come from files and hub data sets: JSON lines, JSON arrays, CSV, TSV and Parquet, also compressed.

JSON and CSV are not read by `datasets`, which does not know the line and changes values: it takes "1998" for a number,
"NA" for nothing and "2012-01-01" for a time.
"""

from __future__ import annotations

import ast
import csv
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from afteredit.store.errors import BadInput
from afteredit.store.rows.json_rows import json_rows, loads
from afteredit.store.rows.normal_text import normal_form, shown
from afteredit.store.rows.parquet_rows import parquet_rows, with_label_names
from afteredit.store.rows.row import Row, normal_rows, stop
from afteredit.store.rows.text_files import NO_FILE, read_text, saved_set_in, why_no_file

KINDS = (".parquet", ".tsv", ".csv", ".json", ".jsonl")
_LIKE_A_LIST = re.compile(  # quoted at one end, or with a nan of pandas
    r"""[\[{]\s*(['"]).*\1\s*[,:\]}].*|.*[\[,:]\s*(['"]).*\2\s*[\]}]|\[(.*,)?\s*nan\s*(,.*)?\]""", re.DOTALL
)
EMBEDDED = Path(__file__).resolve().parents[2] / "data"


def read_rows(path: Path, bad: Callable[[BadInput], None] = stop) -> Iterator[Row]:
    """Yields the rows of a file.  `bad` is called with each row that cannot be read.

    Raises BadInput, naming file and line or row, where the rest of the file cannot be read either.
    """
    kind = _kind(path)
    if kind == ".parquet":
        found: Iterator[Row] = parquet_rows(path, bad)
    else:
        text = read_text(path, str(path))
        if kind in (".tsv", ".csv"):
            found = _table_rows(path, text, "\t" if kind == ".tsv" else ",", bad)
        else:
            if not set(map(str.lower, path.suffixes)) & set(KINDS) and text.lstrip()[:1] not in ("[", "{", ""):
                raise BadInput(f"{path}: is read as JSON lines by its ending, but is no JSON; the name of a table ends "
                               "in .csv (commas between the cells) or .tsv (tabs)")  # fmt: skip
            found = json_rows(path, text, bad)
    yield from normal_rows(found, bad)


def how_to_fill(source: str) -> str:
    """Returns words for what a file of this name, or a data set, that holds no rows should hold."""
    if _kind(Path(source)) in (".csv", ".tsv"):
        return "put the names of the columns on its first line, and one row on each line after it"
    if _kind(Path(source)) == ".parquet":
        return "give one that has rows"
    return "put one JSON object on each line, or one array of objects"


def _kind(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in reversed(path.suffixes[-2:])]
    return next((suffix for suffix in suffixes if suffix in KINDS), ".jsonl")


def refuse_no_file(path: Path) -> None:
    """Raises BadInput where something stands at `path` that is no file, so that no other file is taken in its place."""
    reason = why_no_file(path)
    if reason not in (None, NO_FILE):
        raise BadInput(f"{path}: is {reason}; put a file of rows there")


def refuse_no_folder(data: str) -> None:
    """Raises BadInput where `data` names no place of rows."""
    if data not in ("mini", "hub") and not Path(data).is_dir():
        file = f" but a file; give its folder, and edits.file={Path(data).name}" if Path(data).is_file() else ""
        raise BadInput(f"data={data}: no such folder{file}; allowed: mini, hub, or a folder of files of rows")


def similar_files(path: Path) -> str:
    """Returns words that name the files of the folder that differ from `path` in their ending only, and what else may
    hold the rows there."""
    stem = path.name.split(".")[0]
    names = sorted(other.name for other in path.parent.glob("*") if other.name.split(".")[0] == stem)
    return (f" (there is {', '.join(names)})" if names else "") + saved_set_in(path.parent)


def hub_rows(path: str, *config: str | None, **options: Any) -> Iterator[Row]:
    """Yields the rows of a hub data set, or of the JSON file at an address, with the names of their class labels.

    Raises BadInput where they cannot be had.
    """
    rows = hub_data(path, *config, **options)
    features = getattr(rows, "features", None) or {}
    numbered = enumerate(rows, start=1)  # `datasets` names no lines
    yield from normal_rows(
        Row(number, f"{path}: row {number}", with_label_names(row, features)) for number, row in numbered
    )


def hub_data(path: str, *config: str | None, instead: str = "data=mini, data=<folder>", **options: Any) -> Any:
    """Returns a hub data set, or the JSON file at an address, as it is.

    Raises BadInput, with what was looked for and what of this machine can be named `instead`, where it cannot be had.
    """
    import datasets

    try:
        if "://" in path:
            return datasets.load_dataset("json", data_files=path, **options)
        return datasets.load_dataset(path, *config, **options)
    except (OSError, ValueError) as problem:
        reason = str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__
        raise BadInput(f"data set {path!r} could not be had from the hub ({reason}); let this machine reach the hub, "
                       f"or use what is local ({instead})") from None  # fmt: skip


def _table_rows(path: Path, text: str, delimiter: str, bad: Callable[[BadInput], None]) -> Iterator[Row]:
    """Yields the rows under the header of a CSV or TSV file.  All cells are texts, or null where they are empty; a list
    is written as JSON.  A TSV file whose quotes do not fit quotes nothing; cells in quotes are refused there."""
    lines = _lines_of_cells(path, text, delimiter)
    if not lines:
        return
    if re.match("sep=.$", text.split("\n", 1)[0].strip('"\r'), re.IGNORECASE):
        raise BadInput(f"{path}:1: sep=… is for Excel alone; take this line out, so that the header is the first")
    header = [normal_form(name) for name in lines[0][1]]
    other = next((mark for mark in ";\t|," if len(header) == 1 and mark in header[0]), None)
    if other is not None:
        raise BadInput(f"{path}:1: the header {shown(header[0])} is one cell, which holds {shown(other)}; save "
                       f"the table with {shown(delimiter)} between its cells, as this ending says")  # fmt: skip
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise BadInput(f"{path}:1: the columns {', '.join(twice)} stand twice in the header; name each column once")
    for number, (line, cells) in enumerate(lines[1:], start=1):
        place = f"{path}:{line} (row {number})"
        try:
            if len(cells) != len(header):
                raise ValueError(f"has {len(cells)} cells where the header, {shown(', '.join(header))}, has "
                                 f"{len(header)}; quote cells that hold the delimiter, or take out what stands above "
                                 "the header")  # fmt: skip
            value = {name: _cell(cell) for name, cell in zip(header, cells, strict=True)}
        except ValueError as problem:
            bad(BadInput(f"{place}: {problem}"))
        else:
            yield Row(number, place, value)


def _lines_of_cells(path: Path, text: str, delimiter: str) -> list[tuple[int, list[str]]]:
    try:
        return _cells(text, delimiter, csv.QUOTE_MINIMAL)
    except csv.Error as problem:
        line, reason = problem.args
        place = f"{path}:{line}"
    if delimiter == "\t":
        lines = _cells(text, delimiter, csv.QUOTE_NONE)
        quoted = [(line, cell) for line, cells in lines for cell in cells if re.fullmatch('".+"', cell, re.DOTALL)]
        if not quoted:
            return lines
        place = f"{path}:{quoted[0][0]}"
        reason = f"the cell {shown(quoted[0][1])} is quoted, but other cells hold quotes and are not"
    raise BadInput(f"{place}: {reason}; put a cell that holds the delimiter or quotes into double quotes, and write "
                   "each quote in it twice")  # fmt: skip


def _cells(text: str, delimiter: str, quoting: Any) -> list[tuple[int, list[str]]]:
    """Returns the cells of every line that is not empty, and the line that they begin on.  Raises csv.Error with the
    line that the faulty cells begin on, and the reason."""
    csv.field_size_limit(2**31 - 1)  # else 131,072 characters
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True, skipinitialspace=True
    )  # typed by hand: a, "b, c"
    lines, begin = [], 1
    try:
        for cells in reader:
            if cells:
                lines.append((begin, cells))
            begin = reader.line_num + 1
    except csv.Error as problem:
        reason = "its row has a quote that is never closed" if "end of data" in str(problem) else str(problem)
        raise csv.Error(begin, reason) from None
    return lines


def _cell(cell: str) -> Any:
    """Returns what a cell holds.  Raises ValueError for a list that is written so that it cannot be read safely."""
    text = cell.strip()
    if not text or text[0] not in "[{(" or text[-1] not in "]})" or text == "{}":
        return cell or None
    try:
        return loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        value = ast.literal_eval(text)  # as pandas writes lists; without its commas 'a' 'b' would be one text
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        value = [] if _LIKE_A_LIST.fullmatch(text) else text
    texts = isinstance(value, tuple | set) and any(isinstance(part, str) for part in value)
    if not isinstance(value, list | dict) and not texts:
        return cell
    if texts or repr(value) != text:
        raise ValueError(f'the cell {shown(cell)} looks like a list, but is not written as JSON; write ["…", "…"]')
    return value
