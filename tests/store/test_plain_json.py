"""Whatever is no JSON is one kind of error, however it is none."""

import json

import pytest

from afteredit.record.older_versions import older_commit
from afteredit.store.checked_lines import read_checked, read_config
from afteredit.store.errors import BadInput
from afteredit.store.plain_json import printable, read_json

DEEP = "[" * 100_000 + "]" * 100_000
DEEP_OBJECT = '{"a":' * 100_000 + "1" + "}" * 100_000
HALF = ['["\\ud800"]', '{"\\udfff": 1}', '{"a": {"b": ["x\\ud83d"]}}', '"\\udc00\\ud800"']


@pytest.mark.parametrize("text", [DEEP, DEEP_OBJECT, *HALF, "", "{", "[1,]"])
@pytest.mark.parametrize("as_bytes", [False, True])
def test_what_cannot_be_read_is_a_value_error(text, as_bytes):
    with pytest.raises(ValueError):
        read_json(text.encode() if as_bytes else text)


@pytest.mark.parametrize("value", ["😀", {"é\n": [1, None, "\u2028", 2.5]}, "\\ud800"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_pairs_and_other_escapes_are_read_as_they_are(value, ascii_only):
    assert read_json(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@pytest.mark.parametrize("text", [DEEP, DEEP_OBJECT, HALF[1]])
def test_a_run_directory_that_holds_it_is_damaged_and_of_no_older_version(tmp_path, text):
    (tmp_path / "environment.json").write_text(text)
    assert older_commit(tmp_path) is None
    with pytest.raises(BadInput, match="environment.json is missing or does not match its checksum"):
        read_checked(tmp_path / "environment.json")


@pytest.mark.parametrize("text", ['a: "\\ud800"', '"\\udfff": 1', 'a: {b: ["x", "\\ud83d"]}'])
def test_a_config_that_holds_half_a_character_is_named(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(BadInput, match=r"config.yaml cannot be read \(it holds \\ud.*half of a surrogate pair"):
        read_config(tmp_path / "config.yaml")
    (tmp_path / "config.yaml").write_text('a: "\\U0001F600"')
    assert read_config(tmp_path / "config.yaml") == {"a": "😀"}


def test_a_name_that_is_not_utf8_is_spelled_out():
    assert printable("x\udcff é") == "x\\udcff é"
