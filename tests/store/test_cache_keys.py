"""Every file in the user's cache has a format number in its key."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from afteredit.edit.ingredients import sampled_text, second_moment
from afteredit.store.code_version import ROOT
from afteredit.store.user_cache import cache_key, content_hash


def names_in(path: Path) -> set[str]:
    return {node.id for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Name)}


def test_every_module_that_keeps_something_names_it_by_a_format_number():
    modules = [path for wing in ("model", "edit", "evaluate") for path in (ROOT / wing).rglob("*.py")]
    keeping = [path for path in modules if "made_once" in names_in(path)]
    assert len(keeping) >= 6
    assert all({"cache_key", "FORMAT"} <= names_in(path) for path in keeping)


def test_another_format_number_is_another_key_and_none_is_that_of_before():
    keys = [cache_key(1, {"model": "x"}), cache_key(2, {"model": "x"}), content_hash({"model": "x"})]
    assert len(set(keys)) == 3


@pytest.mark.parametrize("module", [sampled_text, second_moment], ids=lambda module: module.__name__)
def test_what_was_made_under_another_format_is_not_served(make_lm, tmp_path, monkeypatch, module):
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path))
    lm = make_lm("gpt2")
    second_moment.second_moments(lm, [1], "sampled", 3)
    kind = module.__name__.rpartition(".")[2]
    before = set((tmp_path / kind).glob("*.safetensors"))
    monkeypatch.setattr(module, "FORMAT", module.FORMAT + 1)
    second_moment.second_moments(lm, [2], "sampled", 3)
    assert len(before) == 1 and len(set((tmp_path / kind).glob("*.safetensors")) - before) == 1
