"""Code that no version names is named by its source: a plug-in's file, and what that imports."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch import nn
from transformers import LlamaForCausalLM

from afteredit.edit.methods.rome import Rome
from afteredit.evaluate.abilities.answer_scores import entity_f1
from afteredit.store import code_version
from afteredit.store.code_version import plugin_code
from afteredit.store.field_roles import class_name

FILES = {
    "__init__.py": "",
    "method.py": """
import json, torch
from . import near
from ownwords.deep import far
class M: pass
def f(): from .late import x
""",
    "near.py": "X = 1\n",
    "late.py": "x = 1\n",
    "deep/__init__.py": "",
    "deep/far.py": "Y = 1\n",
    "unused.py": "Z = 1\n",
}


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A package outside this program, and the module of it that defines a class M."""
    folder = tmp_path / "ownwords"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield folder, importlib.import_module("ownwords.method")
    for name in [name for name in sys.modules if name.startswith("ownwords")]:
        del sys.modules[name]


@pytest.mark.parametrize("file", FILES)
def test_a_file_that_the_class_needs_renames_it_and_no_other_does(plugin, file):
    folder, module = plugin
    before = plugin_code(module.M)
    (folder / file).write_text(FILES[file] + "# changed\n")
    assert (plugin_code(module.M) == before) == (file == "unused.py")
    assert plugin_code({"task": [module.f]}) == plugin_code(module.M)  # functions, and inside a config
    assert "ownwords.late" not in sys.modules


def test_a_subclass_of_a_plug_in_and_of_ours_is_named_by_all_of_its_files(plugin):
    _, module = plugin
    ours = type("Ours", (module.M, Rome), {"__module__": Rome.__module__})
    assert plugin_code(ours) == plugin_code(module.M)


def test_our_own_code_and_the_packages_have_versions_instead():
    assert plugin_code(Rome, entity_f1, nn.Linear, dict, Path, None, "text", 3) == []


def test_packages_of_an_environment_inside_the_checkout_have_versions_too(monkeypatch):
    """Were they taken for plug-ins, all of torch would be parsed, for minutes: no source may be."""
    monkeypatch.setattr(code_version, "ROOT", Path(nn.__file__).resolve().parents[4])  # above site-packages
    refusing = SimpleNamespace(parse=lambda _source: pytest.fail("the source of a package was parsed"))
    monkeypatch.setattr(code_version, "ast", refusing)
    assert plugin_code(nn.Linear, LlamaForCausalLM) == []


def test_a_class_has_the_same_name_wherever_its_model_folder_lies():
    first, second = (type("Own", (), {"__module__": f"transformers_modules.{at}.modeling"}) for at in ("a", "b"))
    assert class_name(first) == class_name(second) == "Own"
    assert class_name(Rome) == "afteredit.edit.methods.rome.Rome"
