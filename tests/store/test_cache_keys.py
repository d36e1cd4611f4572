"""Every file in the user's cache has a format number in its key."""

from __future__ import annotations

import ast

import pytest

from afteredit.commands.locate import trials
from afteredit.edit.ingredients import sampled_text, second_moment
from afteredit.store.user_cache import cache_key, content_hash
from afteredit.tests.house.source import FILES, relative, syntax
from afteredit.tests.tiny.composed import compose

KEEPERS = {"made_once", "KeptProgress", "KeptResults"}  # what puts a file into the cache, under the name it is given
KEEPING = {
    "model/loading/gguf.py", "edit/ingredients/sampled_text.py", "edit/ingredients/second_moment.py",
    "edit/ingredients/value_norm.py", "edit/methods/alphaedit.py", "edit/hypernetwork/training.py",
    "evaluate/abilities/unedited_scores.py", "commands/locate/trace.py", "commands/locate/trials.py",
}  # fmt: skip


def trees(names: set[str]) -> dict[str, ast.Module]:
    """Returns the syntax of each module, store's own left out, that speaks of one of these names, by its path."""
    texts = {path: path.read_text("utf-8") for path in FILES if not relative(path).startswith("store/")}
    return {relative(path): syntax(path) for path, text in texts.items() if any(name in text for name in names)}


def calls(node: ast.AST, names: set[str]) -> list[ast.Call]:
    """Returns the calls of any of these names inside a node."""
    return [call for call in ast.walk(node) if isinstance(call, ast.Call)
            and (getattr(call.func, "id", None) or getattr(call.func, "attr", None)) in names]  # fmt: skip


def functions(tree: ast.Module) -> list[ast.stmt]:
    """Returns the statements of a module and of its classes: each function with those inside it."""
    return [inner for node in tree.body for inner in (node.body if isinstance(node, ast.ClassDef) else [node])]


def numbers_in(name: ast.expr, function: ast.stmt) -> list[str]:
    """Returns the format numbers of the cache keys in an expression, and in the variables that it is made of."""
    assigned = {ast.unparse(node.targets[0]): node.value for node in ast.walk(function) if isinstance(node, ast.Assign)}
    left, numbers = [name], []
    while left:
        expression = left.pop()
        numbers += [ast.unparse(call.args[0]) for call in calls(expression, {"cache_key"})]
        variables = {node.id for node in ast.walk(expression) if isinstance(node, ast.Name)}
        left += [assigned.pop(variable) for variable in variables & assigned.keys()]
    return numbers


def has_its_own_number(tree: ast.Module) -> bool:
    """Tells whether a module sets FORMAT to a whole number."""
    assigned = [node for node in tree.body if isinstance(node, ast.Assign)]
    values = [ast.literal_eval(node.value) for node in assigned if ast.unparse(node.targets[0]) == "FORMAT"]
    return [type(value) for value in values] == [int]


def test_the_name_of_every_file_that_is_kept_has_the_format_number_of_its_module():
    keeping = {path: tree for path, tree in trees(KEEPERS).items() if calls(tree, KEEPERS)}
    numbers = {(path, ast.unparse(call)): numbers_in(call.args[0], function)
               for path, tree in keeping.items() for function in functions(tree)
               for call in calls(function, KEEPERS)}  # fmt: skip
    assert keeping.keys() >= KEEPING
    assert {call: found for call, found in numbers.items() if found != ["FORMAT"]} == {}
    assert [path for path, tree in keeping.items() if not has_its_own_number(tree)] == []


def test_nothing_else_reaches_into_the_cache_but_to_look_for_a_converted_model():
    reaching = {path for path, tree in trees({"cache_folder"}).items() if calls(tree, {"cache_folder"})}
    assert reaching == {"model/loading/gguf.py", "commands/plan/shape_only.py"}


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


def test_trials_of_another_format_are_not_served(make_lm, tmp_path, monkeypatch):
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path))
    x, lm, served = compose([]), make_lm("gpt2"), []
    for number in (1, 1, 2):
        monkeypatch.setattr(trials, "FORMAT", number)
        with trials.kept_trials(x, lm) as kept:
            served.append("trial" in kept)
            kept.of("trial", lambda: 1.0)
    assert served == [False, True, False]
