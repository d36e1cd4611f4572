"""Files of one's own that Hydra puts elsewhere than under their name, or does not take, are refused with the remedy."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from afteredit.launch.command_line import compose
from afteredit.store.errors import BadInput

CONF = Path(__file__).resolve().parents[2] / "conf"
SHIPPED = CONF / "task" / "nli.yaml"


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


@pytest.mark.parametrize("given", ["--config-dir={}", "hydra.searchpath=[{}]"])
def test_a_file_with_the_name_of_an_own_entry_is_refused_unless_it_is_a_copy(tmp_path, given):
    own = tmp_path / "edits" / "facts.yaml"
    own.parent.mkdir()
    own.write_bytes((CONF / "edits" / "facts.yaml").read_bytes())
    arguments = [given.format(tmp_path), "method=ft"]
    assert compose(arguments).names["edits"] == "facts"
    own.write_text(own.read_text("utf-8").replace("facts.jsonl", "mine.jsonl"), "utf-8")
    with pytest.raises(BadInput, match=r"edits/facts.yaml has the name of an entry of afteredit's own.*another name"):
        compose(arguments)


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefghij", "bcdefghijk", strict=True)
)
TOO_MANY = "make it more than 10,000 values"
ENDLESS = {"aliases": (BOMB, TOO_MANY), "itself": ("a: &a [x, *a]\n", TOO_MANY),
           "deep": (f"name: {'[' * 5000}{']' * 5000}\n", "nested more than 50 levels deep; make it")}  # fmt: skip


@pytest.mark.parametrize("group", ["experiment", "method", "edits"])
def test_a_config_that_begins_with_a_byte_order_mark_is_named(tmp_path, group):
    """Hydra does not see its "# @package" line then."""
    (tmp_path / group).mkdir()
    (tmp_path / group / "mine.yaml").write_text("# @package _global_\nseed: 7\n", encoding="utf-8-sig")
    with pytest.raises(BadInput, match=rf"{group}/mine.yaml begins with a byte-order mark; save it as UTF-8 without"):
        compose([f"--config-dir={tmp_path}", "task=none"])


WHERE = {  # the choice, and where its file lies
    "edits=own": "edits/own.yaml",
    "edits=deeper/own": "edits/deeper/own.yaml",
    "+experiment=deeper/own": "experiment/deeper/own.yaml",
    "+mine=own": "mine/own.yaml",
    "+mine@run=own": "mine/own.yaml",
    "hydra/launcher=own": "hydra/launcher/own.yaml",
    "edits=facts": "other/own.yaml",  # which mine.yaml, beside it, names
}


@pytest.mark.parametrize("given", ["--config-dir={}", "hydra.searchpath=[file://{}]"])
@pytest.mark.parametrize("name", ENDLESS)
@pytest.mark.parametrize("choice", WHERE)
def test_a_file_that_hydra_would_not_come_to_the_end_of_is_refused_by_its_name(tmp_path, choice, name, given):
    content, reason = ENDLESS[name]
    own = tmp_path / WHERE[choice]
    own.parent.mkdir(parents=True)
    own.write_text(content)
    (tmp_path / "edits").mkdir(exist_ok=True)
    (tmp_path / "edits" / "mine.yaml").write_text("defaults:\n  - my\n  - override /other@here: own\n")
    with pytest.raises(BadInput) as refused:
        compose([given.format(tmp_path), choice])
    assert str(own) in str(refused.value) and reason in str(refused.value)


def test_a_long_file_without_aliases_is_taken(tmp_path):
    content = (CONF / "edits" / "facts.yaml").read_text("utf-8")
    (tmp_path / "edits").mkdir()
    (tmp_path / "edits" / "own.yaml").write_text(content + f"fact_true: null\nspare: [{'1,' * 10_001}]\n")
    with pytest.raises(BadInput, match="unknown key edits.spare"):
        compose(["--config-dir", str(tmp_path), "edits=own"])


def test_aliases_that_spare_words_are_taken(tmp_path):
    content = (CONF / "edits" / "facts.yaml").read_text("utf-8").replace("name: facts", "name: &name own")
    (tmp_path / "edits").mkdir()
    (tmp_path / "edits" / "own.yaml").write_text(content + "hub_split: *name\n")
    edits = compose(["--config-dir", str(tmp_path), "edits=own"]).edits
    assert (edits.name, edits.hub_split) == ("own", "own")
