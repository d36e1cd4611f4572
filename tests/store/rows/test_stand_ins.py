"""A pointer of Git LFS or a web page in the place of a file is no file: neither its rows nor its text are read."""

from __future__ import annotations

import tarfile

import datasets
import pyarrow
import pyarrow.feather
import pytest

from afteredit.store.errors import BadInput
from afteredit.store.rows.row_files import read_rows, similar_files
from afteredit.store.rows.text_files import read_text

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"  # noqa: E501
PAGE = '\n<!DOCTYPE html>\n<html lang="en"><head><title>facts.jsonl at main</title></head></html>\n'


@pytest.mark.parametrize(
    "name", ["facts.jsonl", "facts.json", "facts.csv", "facts.tsv", "facts.parquet", "facts.jsonl.gz"]
)
@pytest.mark.parametrize(("content", "told"), [(POINTER, "git lfs pull"), (PAGE, "web page")])
def test_rows_are_not_looked_for_there(tmp_path, name, content, told):
    (tmp_path / name).write_text(content)
    with pytest.raises(BadInput, match=f"{name}.* is a .*{told}"):
        list(read_rows(tmp_path / name))


def test_a_saved_data_set_is_named_with_the_way_to_its_rows(tmp_path):
    datasets.Dataset.from_list([{"a": "x"}]).save_to_disk(str(tmp_path / "set"))
    (arrow,) = (tmp_path / "set").glob("*.arrow")
    for path, told in ((arrow, "data set that was saved"), (tmp_path / "set", "a saved data set: write it out")):
        with pytest.raises(BadInput, match=rf"{told}, datasets.load_from_disk\(.*to_parquet"):
            list(read_rows(path))
    assert "a saved data set" in similar_files(tmp_path / "set" / "facts.jsonl")
    assert similar_files(tmp_path / "facts.jsonl") == ""


@pytest.mark.parametrize(("content", "told"), [(POINTER, "git lfs pull"), (PAGE, "web page")])
def test_a_held_out_text_is_not_taken_from_there(tmp_path, content, told):
    (tmp_path / "wiki.txt").write_text(content)
    with pytest.raises(BadInput, match=f"held_out=wiki.txt: is a .*{told}"):
        read_text(tmp_path / "wiki.txt", "held_out=wiki.txt")
    (tmp_path / "wiki.txt").write_text(f"Of texts. {content}")
    assert read_text(tmp_path / "wiki.txt", "held_out").endswith(content)


def test_feather_is_named_with_the_way_to_its_rows(tmp_path):
    table = pyarrow.table({"a": ["x"]})
    pyarrow.feather.write_feather(table, tmp_path / "facts.feather")
    with pytest.raises(BadInput, match=r"Arrow file .write it out, pandas.read_feather\('<file>'\).to_parquet"):
        list(read_rows(tmp_path / "facts.feather"))


@pytest.mark.parametrize("name", ["facts.tar.gz", "facts.jsonl", "facts.csv.gz"])
def test_a_tar_archive_is_named_with_the_way_to_its_rows(tmp_path, name):
    (tmp_path / "rows.jsonl").write_text('{"a": "x"}\n')
    with tarfile.open(tmp_path / name, "w:gz" if name.endswith("gz") else "w") as archive:
        archive.add(tmp_path / "rows.jsonl", "rows.jsonl")
    with pytest.raises(BadInput, match=rf"{name}: is a tar archive \(take the file out of it: tar -xf\)"):
        list(read_rows(tmp_path / name))


@pytest.mark.parametrize(("first", "told"), [(b"FEA1", "an old Feather file"), (b"ORC", "an ORC file")])
def test_other_tables_are_named_by_their_first_bytes(tmp_path, first, told):
    (tmp_path / "facts.jsonl").write_bytes(first + bytes(20))
    with pytest.raises(BadInput, match=rf"facts.jsonl: is {told} \(save it as Parquet\)"):
        list(read_rows(tmp_path / "facts.jsonl"))
