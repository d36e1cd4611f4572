"""A task file of one's own that Hydra puts elsewhere than under its name is refused with the line that it lacks."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from afteredit.launch.command_line import compose
from afteredit.store.errors import BadInput

SHIPPED = Path(__file__).resolve().parents[2] / "conf" / "task" / "nli.yaml"


@pytest.mark.parametrize("begin", [codecs.BOM_UTF8, b"key: 1\n"])
def test_a_file_without_its_first_line_is_told_of_it(tmp_path, begin):
    content = SHIPPED.read_bytes().replace(b"task.nli", b"task.own")
    assert b"# @package task.own\n" in content
    (tmp_path / "task").mkdir()
    own = tmp_path / "task" / "own.yaml"
    own.write_bytes(content)
    assert set(compose(["--config-dir", str(tmp_path), "task=[own]"]).tasks) == {"own"}
    own.write_bytes(begin + content.replace(b"# @package task.own\n", b"") if begin[:1] == b"k" else begin + content)
    with pytest.raises(BadInput, match="begins with the line # @package task.<name>, without a byte-order mark"):
        compose(["--config-dir", str(tmp_path), "task=[own]"])
