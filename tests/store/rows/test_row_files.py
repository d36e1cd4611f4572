"""Rows of every kind of file are the same rows; what cannot be read is refused by its file and line, never changed."""

import bz2
import codecs
import gzip
import json
import lzma
import os
import unicodedata
from pathlib import Path

import pytest

from afteredit.store.errors import BadInput
from afteredit.store.rows.row_files import read_rows
from afteredit.store.rows.text_files import read_text

ROWS = [{"subject": "Perú", "prompt": "The capital of {} is", "target_new": "1998", "also": ["a, b", "c"]},
        {"subject": "Namibia", "prompt": "Its code is", "target_new": "NA", "also": ["2012-01-01"]},
        {"subject": "José \"Pepe\" Ríos", "prompt": "A\nB", "target_new": "007", "also": []}]  # fmt: skip
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
ARRAY = json.dumps(ROWS, indent=2, ensure_ascii=False)


def table(delimiter: str) -> str:
    """Returns the rows as a spreadsheet writes them."""
    cells = [list(ROWS[0]), *([*list(row.values())[:3], json.dumps(row["also"])] for row in ROWS)]
    quoted = [['"' + cell.replace('"', '""') + '"' for cell in line] for line in cells]
    return "".join(delimiter.join(line) + "\r\n" for line in quoted)


def parquet(rows: list[dict], path: Path) -> bytes:
    import datasets

    datasets.Dataset.from_list(rows).to_parquet(str(path))
    return path.read_bytes()


TEXTS = {
    "lines.jsonl": LINES.encode(),
    "no_line_end.jsonl": LINES.strip().encode(),
    "windows.jsonl": LINES.replace("\n", "\r\n").encode(),
    "old_mac.jsonl": LINES.replace("\n", "\r").encode(),
    "blank_lines.jsonl": LINES.replace("\n", "\n\n \n").encode(),
    "mark.jsonl": codecs.BOM_UTF8 + LINES.encode(),
    "two_marks.jsonl": 2 * codecs.BOM_UTF8 + LINES.encode(),
    "joined.jsonl": b"".join(codecs.BOM_UTF8 + line.encode() for line in LINES.splitlines(keepends=True)),
    "utf16.jsonl": codecs.BOM_UTF16_LE + LINES.encode("utf-16-le"),
    "decomposed.jsonl": unicodedata.normalize("NFD", LINES).encode(),
    "spaces.jsonl": LINES.replace('"Namibia"', '"\\u00a0Namibia\\u200b \\ufeff"').encode(),
    "array.json": ARRAY.encode(),
    "array.jsonl": codecs.BOM_UTF8 + b"\n " + ARRAY.replace("\n", "\r\n").encode(),
    "array_on_one_line.json": json.dumps(ROWS).encode(),
    "lines.json": LINES.encode(),
    "lines.jsonl.gz": gzip.compress(LINES.encode()),
    "array.json.bz2": bz2.compress(ARRAY.encode()),
    "compressed_without_saying_so.jsonl": lzma.compress(LINES.encode()),
    "table.csv": table(",").encode(),
    "mark.csv": codecs.BOM_UTF8 + table(",").encode(),
    "two_marks.csv": 2 * codecs.BOM_UTF8 + table(",").encode(),
    "typed.csv": table(",").replace('","', '", "').encode(),
    "table.tsv": table("\t").encode(),
    "table.csv.gz": gzip.compress(table(",").encode()),
    "of_a_table.csv.jsonl": LINES.encode(),
}


@pytest.mark.parametrize("name", TEXTS)
def test_rows_are_the_same_whatever_the_file(tmp_path, name):
    (tmp_path / name).write_bytes(TEXTS[name])
    assert [row.value for row in read_rows(tmp_path / name)] == ROWS


def test_parquet_rows_are_the_same_and_class_labels_are_their_names(tmp_path):
    from datasets import ClassLabel, Dataset, Features, List, Value

    path = tmp_path / "rows[1].parquet"
    parquet(ROWS, path)
    assert [row.value for row in read_rows(path)] == ROWS
    names = ClassLabel(names=["no", "yes"])
    features = Features({"text": Value("string"), "label": names, "tags": List(names)})
    Dataset.from_dict({"text": ["a", "b"], "label": [1, -1], "tags": [[0, 1], []]}, features=features).to_parquet(path)
    assert [row.value for row in read_rows(path)] == [{"text": "a", "label": "yes", "tags": ["no", "yes"]},
                                                      {"text": "b", "label": -1, "tags": []}]  # fmt: skip


def test_places_are_lines_or_rows(tmp_path):
    (tmp_path / "a.jsonl").write_text('\n{"a": 1}\n\n{"a": 2}')
    (tmp_path / "b.json").write_text('[\n {"a": 1}, {"a": 2},\n\n {"a":\n 3}]')
    (tmp_path / "c.csv").write_text('a\n"1\n2"\n\n3\n')
    places = {name: [(row.number, row.place.removeprefix(f"{tmp_path}/")) for row in read_rows(tmp_path / name)]
              for name in ("a.jsonl", "b.json", "c.csv")}  # fmt: skip
    assert places == {"a.jsonl": [(2, "a.jsonl:2"), (4, "a.jsonl:4")],
                      "b.json": [(1, "b.json:2 (row 1)"), (2, "b.json:2 (row 2)"), (3, "b.json:4 (row 3)")],
                      "c.csv": [(1, "c.csv:2 (row 1)"), (2, "c.csv:5 (row 2)")]}  # fmt: skip


def test_a_tsv_file_that_quotes_nothing_keeps_its_quotes(tmp_path):
    (tmp_path / "a.tsv").write_text('sentence\tlabel\n"good" he said\t1\nit is 5" long\t0\n"\t1\n')
    assert [row.value["sentence"] for row in read_rows(tmp_path / "a.tsv")] == ['"good" he said', 'it is 5" long', '"']


def test_a_cell_may_be_long(tmp_path):
    (tmp_path / "a.csv").write_text(f"a\n{'x' * 200_000}\n")
    assert [row.value for row in read_rows(tmp_path / "a.csv")] == [{"a": "x" * 200_000}]


def test_empty_cells_and_nan_are_null_and_lists_of_pandas_are_lists(tmp_path):
    (tmp_path / "a.csv").write_text("a,b,c\n,\"['x', 'y']\",{}\n")
    (tmp_path / "a.jsonl").write_text('{"a": NaN, "b": ["x", "y"], "c": "{}"}')
    for name in ("a.csv", "a.jsonl"):
        assert [row.value for row in read_rows(tmp_path / name)] == [{"a": None, "b": ["x", "y"], "c": "{}"}]


REFUSED = {
    "cut.jsonl": (b'{"a": 1}\n{"a": ', ["cut.jsonl:2", "not JSON", "per line"]),
    "cut.json": (b'[{"a": 1},\n{"a": 2}', ["cut.json:2", "comma or the end"]),
    "comma.json": (b'[{"a": 1},\n]', ["comma.json:2", "not JSON"]),
    "after.json": (b'[{"a": 1}]\n[{"a": 2}]', ["after.json:2", "after the array"]),
    "one_object.json": (b'{\n "data": [{"a": 1}]\n}', ["one JSON object", "'data'", "array"]),
    "twice.jsonl": (b'{"a": 1, "a": 2}', ["twice.jsonl:1", "stands twice", "'a'"]),
    "deep.jsonl": (b'{"a":' * 100_000, ["deep.jsonl:1", "nested too deeply"]),
    "deep.json": (b"[" * 100_000, ["deep.json:1", "nested too deeply"]),
    "deep_but_whole.jsonl": (b'{"a": ' + b"[" * 900 + b"]" * 900 + b"}", ["deep_but_whole.jsonl:1", "nested"]),
    "surrogate.jsonl": (b'{"a": "\\ud800"}', ["surrogate.jsonl:1", "\\ud800", "surrogate"]),
    "surrogate_name.json": (b'[{"\\ud800": 1}]', ["surrogate_name.json:1 (row 1)", "surrogate"]),
    "latin.jsonl": (b'{"a": "Per\xfa"}', ["latin.jsonl", "UTF-8"]),
    "cells.csv": (b"a,b\n1,2\n1,2,3\n", ["cells.csv:3 (row 2)", "3 cells where the header, 'a, b', has 2"]),
    "comment.csv": (
        b"# of March\na,b\n1,2\n",
        [
            "comment.csv:2 (row 1)",
            "2 cells where the header, '# of March', has 1",
            "take out what stands above the header",
        ],
    ),
    "quotes.csv": (b'a,b\n1,2\n"x" y,2\n', ["quotes.csv:3: ", "double quotes"]),
    "open.csv": (b'a,b\n1,2\n"x\ny",2\n3,"z\n4,5\n', ["open.csv:5: ", "never closed", "double quotes"]),
    "header.csv": (b"a,a\n1,2\n", ["header.csv:1", "a stand twice"]),
    "numpy.csv": (b"a\n\"['x' 'y']\"\n", ["numpy.csv:2 (row 1)", "looks like a list", "JSON"]),
    "nan.csv": (b"a\n\"['a', nan]\"\n", ["nan.csv:2 (row 1)", "looks like a list", "JSON"]),
    "nan_first.csv": (b"a\n\"[nan, 'a']\"\n", ["nan_first.csv:2 (row 1)", "looks like a list"]),
    "nan_only.csv": (b'a\n"[nan, nan]"\n', ["nan_only.csv:2 (row 1)", "looks like a list"]),
    "tuple.csv": (b"a\n\"('a', 'b')\"\n", ["tuple.csv:2 (row 1)", "looks like a list", "JSON"]),
    "set.csv": (b"a\n\"{'a', 'b'}\"\n", ["set.csv:2 (row 1)", "looks like a list", "JSON"]),
    "mixed.tsv": (b'a\tb\n"D"\t1\n"D" is\t2\n', ["mixed.tsv:2", '"D"', "is quoted", "double quotes"]),
    "torn.jsonl.gz": (gzip.compress(LINES.encode())[:-9], ["torn.jsonl.gz", "cannot be read"]),
    "rows.zip": (b"PK\x03\x04" + b"0" * 40, ["rows.zip", "a zip archive", ".gz"]),
    "rows.pkl": (b"\x80\x05\x95" + b"0" * 40, ["rows.pkl", "a pickle", "never read", "to_parquet"]),
    "rows.xlsx": (b"PK\x03\x04" + b"0" * 40, ["rows.xlsx", "Excel", "save a table as CSV"]),
    "rows.xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"0" * 40, ["rows.xls", "Excel", "save a table as CSV"]),
    "no.parquet": (b"PAR1 no", ["no.parquet", "Parquet"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_with_its_place(tmp_path, name):
    content, told = REFUSED[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput) as problem:
        list(read_rows(tmp_path / name))
    for words in told:
        assert words in str(problem.value)


def test_texts_in_brackets_stay_texts(tmp_path):
    texts = ["[deleted]", "{x}", "(12, 5)", '("good")', "('good', he said)", "[sic] it isn't [so]", "[don't]"]
    (tmp_path / "a.csv").write_text("a\n" + "".join('"' + text.replace('"', '""') + '"\n' for text in texts))
    assert [row.value["a"] for row in read_rows(tmp_path / "a.csv")] == texts


def test_parquet_columns_that_stand_twice_or_cannot_be_read_are_refused(tmp_path):
    import pyarrow as pa
    from pyarrow.parquet import write_table

    path = tmp_path / "a.parquet"
    write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["subject", "subject"]), path)
    with pytest.raises(BadInput, match="two columns of the name subject"):
        list(read_rows(path))
    maps = pa.array([[("k", "v")]], type=pa.map_(pa.string(), pa.string()))
    write_table(pa.table({"subject": ["a"], "other": maps}), path)
    with pytest.raises(BadInput, match="cannot be read.*map.*leave it out"):
        list(read_rows(path))


def _not_utf8():
    import pyarrow as pa

    return pa.Array.from_buffers(pa.string(), 2, [None, pa.array(["ab", "c"]).buffers()[1], pa.py_buffer(b"ab\xff")])


UNREADABLE = {  # two cells each, of which Python has no value for the second
    "not utf-8": _not_utf8,
    "beyond the calendar": lambda: pa_array([0, 3 * 10**7 * 365 * 86400], "timestamp", "s"),
    "before the calendar": lambda: pa_array([0, -(2**50)], "timestamp", "ms"),
    "unknown zone": lambda: pa_array([None, 5], "timestamp", "ms", "Mars/Base"),
    "long duration": lambda: pa_array([0, 2**62], "duration", "s"),
}


def pa_array(values, kind: str, *options):
    import pyarrow as pa

    return pa.array(values, getattr(pa, kind)(*options))


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_parquet_value_that_cannot_be_read_is_refused_by_row_and_column_or_skipped(tmp_path, kind):
    import pyarrow as pa
    from pyarrow.parquet import write_table

    path = tmp_path / "a.parquet"
    write_table(pa.table({"subject": ["a", "b"], "when": UNREADABLE[kind]()}), path)
    with pytest.raises(BadInput, match=r"a\.parquet: row 2: field when is a .* that cannot be read .*leave the column"):
        list(read_rows(path))
    problems: list[BadInput] = []
    assert [row.value["subject"] for row in read_rows(path, problems.append)] == ["a"]
    assert len(problems) == 1


METADATA = [b"{no", b"null", b"\xff", b'{"info": null}', b'{"info": {"features": {"subject": {"_type": "Nope"}}}}',
            b'{"info": {"features": {"subject": {"_type": "ClassLabel", "names": 5}}}}']  # fmt: skip


@pytest.mark.parametrize("metadata", METADATA)
def test_wrong_metadata_of_a_parquet_file_is_named_as_such(tmp_path, metadata):
    import pyarrow as pa
    from pyarrow.parquet import write_table

    table = pa.table({"subject": ["a"]}).replace_schema_metadata({b"huggingface": metadata})
    write_table(table, tmp_path / "a.parquet")
    with pytest.raises(BadInput, match=r'a\.parquet: the metadata "huggingface".*cannot be read.*without it'):
        list(read_rows(tmp_path / "a.parquet"))


def test_bad_lines_can_be_skipped_and_the_others_are_read(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": \n{"a": "\\ud800"}\n{"a": 4}\n')
    problems: list[BadInput] = []
    assert [row.value for row in read_rows(tmp_path / "a.jsonl", problems.append)] == [{"a": 1}, {"a": 4}]
    assert [str(problem).split(": ")[0] for problem in problems] == [f"{tmp_path}/a.jsonl:{line}" for line in (2, 3)]


@pytest.mark.parametrize("kind", ["missing", "link", "folder", "pipe"])
def test_what_is_no_file_is_refused_at_once(tmp_path, kind):
    path = tmp_path / "text.txt"
    make = {"link": lambda: path.symlink_to(tmp_path / "gone"), "folder": path.mkdir, "pipe": lambda: os.mkfifo(path)}
    make.get(kind, lambda: None)()
    words = {"missing": "no such file", "link": "a link to a file that is not there", "folder": "a folder",
             "pipe": "a pipe"}  # fmt: skip
    with pytest.raises(BadInput, match=f"held_out={path}.*{words[kind]}.*give a text file"):
        read_text(path, f"held_out={path}")


def test_a_link_to_a_file_is_followed(tmp_path):
    (tmp_path / "blob").write_text(LINES)
    (tmp_path / "rows.jsonl").symlink_to("blob")
    assert [row.value for row in read_rows(tmp_path / "rows.jsonl")] == ROWS


WIDE = {kind: LINES.encode(kind) for kind in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")}


@pytest.mark.parametrize("kind", WIDE)
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.jsonl.gz"])
def test_wide_text_without_a_mark_is_named_as_such(tmp_path, kind, name):
    content = gzip.compress(WIDE[kind]) if name.endswith("gz") else WIDE[kind]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=f"{name}: is UTF-16 or UTF-32 text without a byte-order mark; save it as UTF-8"):
        list(read_rows(tmp_path / name))


def test_nul_bytes_are_text_where_not_every_other_byte_is_one(tmp_path):
    for text in ("a\0b\0\0c", "\0\0\0\0", "ab\0"):
        (tmp_path / "text").write_text(text)
        assert read_text(tmp_path / "text", "text") == text


def test_a_number_too_long_for_a_number_is_named_with_its_line(tmp_path):
    for text in (f'{{"id": 1}}\n{{"id": {"7" * 5000}}}', f'[{{"id": 1}},\n{{"id": -{"7" * 5000}}}]'):
        (tmp_path / "rows.json").write_text(text)
        with pytest.raises(BadInput, match=r"rows.json:2: .*a number of 500. digits is too long; write it as"):
            list(read_rows(tmp_path / "rows.json"))
    (tmp_path / "rows.json").write_text(f'{{"id": {"7" * 4000}}}')
    assert list(read_rows(tmp_path / "rows.json"))[0].value == {"id": int("7" * 4000)}
